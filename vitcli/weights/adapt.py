"""Bridges between weights and a model that differs a little: each changes the tensors, and says so in the report.

What is no exact match afterwards is refused by `load_weights`; nothing else is ever dropped or changed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.weights.report import LoadReport

PosResample = Literal["timm", "torchvision", "jax"]
#: how each of them resizes a grid of position embeddings; jax: scipy.ndimage.zoom of order 1
INTERPOLATIONS: dict[PosResample, dict[str, Any]] = {
    "timm": {"mode": "bicubic", "antialias": True, "align_corners": False},
    "torchvision": {"mode": "bicubic", "align_corners": True},
    "jax": {"mode": "bilinear", "align_corners": True},
}

Tensors = dict[str, Tensor]


def adapt(
    tensors: Tensors, model: nn.Module, report: LoadReport, *, reset_head: bool, pos_resample: PosResample
) -> None:
    """Every bridge that `model` needs, in place."""
    own = model.state_dict()
    classifiers: tuple[str, ...] = getattr(model, "classifiers", ("head",))
    _leave_out_distillation(tensors, own, report)
    _rename_norm(tensors, own, report)
    if "fine_tune.weight" in own:  # the head before it must be the file's
        _settle_heads(tensors, own, ("fine_tune",), report, reset=reset_head)
    else:
        _settle_heads(tensors, own, classifiers, report, reset=reset_head)
    if not any(f"{name}.weight" in tensors for name in classifiers):
        _settle_pre_logits(tensors, own, report)
    _convert_channels(tensors, own, getattr(model, "first_convs", ()), report)
    _resample_patches(tensors, own, report)
    _resample_positions(tensors, own, getattr(model, "num_prefix_tokens", 0), report, pos_resample)


def _settle_heads(
    tensors: Tensors, own: Mapping[str, Tensor], heads: tuple[str, ...], report: LoadReport, *, reset: bool
) -> None:
    """Take the heads out of `tensors` if they are not wanted or of another size."""
    in_file = [name for name in tensors if name.startswith(tuple(f"{head}." for head in heads))]
    in_model = [name for name in own if name.startswith(tuple(f"{head}." for head in heads))]
    file_classes, model_classes = _num_classes(tensors, heads), _num_classes(own, heads)
    said = "head" if heads != ("fine_tune",) else "fine_tune"
    if file_classes and not model_classes:
        report.notes.append(f"{said} not loaded: the file has {file_classes} classes, the model has no head")
    elif reset:
        report.notes.append(f"{said} not loaded: a fresh one was asked for")
    elif file_classes and file_classes != model_classes:
        report.notes.append(f"{said} not loaded: the file has {file_classes} classes, the model {model_classes}")
    elif model_classes and not file_classes:
        report.notes.append(f"{said} not loaded: the file has none")
    else:
        return
    _leave_out(tensors, in_file, report)
    report.missing += in_model


def _num_classes(tensors: Mapping[str, Tensor], heads: Iterable[str]) -> int:
    return next((len(tensors[f"{head}.weight"]) for head in heads if f"{head}.weight" in tensors), 0)


def _settle_pre_logits(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """The layer before a head belongs to that head: with a fresh one it is fresh or left out."""
    in_file = [name for name in tensors if name.startswith("pre_logits.")]
    in_model = [name for name in own if name.startswith("pre_logits.")]
    if in_file and not in_model:
        _leave_out(tensors, in_file, report)
        report.notes.append("pre_logits not loaded: they belong to the head of the file")
    elif in_model and not in_file:
        report.missing += in_model
        report.notes.append("pre_logits not loaded: the file has none")


def _leave_out_distillation(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """DeiT's second token and head, out of a distilled file, for a model without them. This loses something."""
    if "dist_token" not in tensors or "dist_token" in own or "cls_token" not in own:
        return
    if "pos_embed" in tensors:
        positions = tensors["pos_embed"]
        tensors["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
        report.resized.append("pos_embed")
    _leave_out(tensors, [name for name in tensors if name.startswith(("dist_token", "head_dist."))], report)
    report.notes.append(
        "dist_token and head_dist not loaded: the file is of a distilled model and loses accuracy without them; "
        "distilled: true keeps them"
    )


def _rename_norm(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """timm calls the last norm `norm` before the class token is pooled, and `fc_norm` behind the mean of patches."""
    for theirs, ours, pooling in (("norm", "fc_norm", "the mean of patches"), ("fc_norm", "norm", "the class token")):
        names = [f"{theirs}.weight", f"{theirs}.bias"]
        if all(name in tensors and name not in own for name in names) and f"{ours}.weight" in own:
            if f"{ours}.weight" in tensors:
                continue
            for name in names:
                tensors[name.replace(theirs, ours, 1)] = tensors.pop(name)
            report.notes.append(f"{theirs} loaded as {ours}: the model pools {pooling}, the file's did not")


def _convert_channels(tensors: Tensors, own: Mapping[str, Tensor], convs: Iterable[str], report: LoadReport) -> None:
    """Color to gray by the sum of the kernels, gray to color by a third for each: a gray image gives the same."""
    for name in (f"{conv}.weight" for conv in convs):
        if name not in tensors or name not in own:
            continue
        kernel, channels = tensors[name], own[name].shape[1]
        if (kernel.shape[1], channels) == (3, 1):
            tensors[name] = kernel.sum(1, keepdim=True)
        elif (kernel.shape[1], channels) == (1, 3):
            tensors[name] = kernel.repeat(1, 3, 1, 1) / 3
        else:
            continue
        report.resized.append(name)
        report.notes.append(f"{name}: {kernel.shape[1]} image channels in the file, {channels} in the model")


def _resample_patches(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    name = "patch_embed.proj.weight"
    if name not in tensors or name not in own or tensors[name].ndim != 4:
        return
    before, after = tensors[name].shape, own[name].shape
    if before[:2] == after[:2] and before[2:] != after[2:]:
        tensors[name] = resample_kernel(tensors[name], (after[2], after[3]))
        report.resized.append(name)
        report.notes.append(f"{name}: patches of {before[3]} px in the file, of {after[3]} px in the model; resampled")


def resample_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """(D, C, p, p) -> (D, C, *size), so that resized patches give what the patches gave, as nearly as possible.

    Source: FlexiViT, arXiv 2212.08013, section 3.4: the pseudo-inverse of the bicubic resize.
    """
    height, width = kernel.shape[2:]
    pixels = torch.eye(height * width).unflatten(1, (1, height, width))
    resize = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).flatten(1).T
    resampled = kernel.float().flatten(2) @ torch.linalg.pinv(resize)
    return resampled.unflatten(2, size).to(kernel.dtype)


def _resample_positions(
    tensors: Tensors, own: Mapping[str, Tensor], num_prefix: int, report: LoadReport, method: PosResample
) -> None:
    if "pos_embed" not in tensors or "pos_embed" not in own:
        return
    positions, wanted = tensors["pos_embed"], own["pos_embed"].shape
    old, new = (math.isqrt(max(rows - num_prefix, 0)) for rows in (positions.shape[1], wanted[1]))
    is_grid = old**2 == positions.shape[1] - num_prefix and new**2 == wanted[1] - num_prefix
    if not is_grid or old == new or not old or positions.shape[2] != wanted[2]:
        return
    tensors["pos_embed"] = resample_positions(positions, new, num_prefix, method)
    report.resized.append("pos_embed")
    report.notes.append(f"pos_embed: {old} x {old} positions in the file, {new} x {new} in the model; as {method} does")


def resample_positions(positions: Tensor, side: int, num_prefix: int, method: PosResample = "timm") -> Tensor:
    """(1, num_prefix + n*n, D) -> (1, num_prefix + side*side, D); the rows of the prefix stay, in fp32 all the way."""
    prefix, grid = positions[:, :num_prefix], positions[:, num_prefix:]
    old = math.isqrt(grid.shape[1])
    maps = grid.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, n, n)
    maps = F.interpolate(maps, (side, side), **INTERPOLATIONS[method])
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def _leave_out(tensors: Tensors, names: list[str], report: LoadReport) -> None:
    report.unexpected += names
    for name in names:
        del tensors[name]
