"""Adapts weights to a model that differs slightly; every change is reported.

`load_weights` refuses what does not match exactly afterwards; nothing else is dropped or changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.imagenet import as_spelled_by
from vitcli.image_size import ImageSize
from vitcli.models.vit_keys import MASK_TOKEN, grid_of

PosResample = Literal["timm", "torchvision", "transformers", "jax"]
#: how these projects resize a grid of position embeddings; jax: scipy.ndimage.zoom of order 1
INTERPOLATIONS: dict[PosResample, dict[str, Any]] = {
    "timm": {"mode": "bicubic", "antialias": True, "align_corners": False},
    "torchvision": {"mode": "bicubic", "align_corners": True},
    "transformers": {"mode": "bicubic", "align_corners": False},
    "jax": {"mode": "bilinear", "align_corners": True},
}

Tensors = dict[str, Tensor]


@dataclass
class LoadReport:
    """What happened to each tensor when weights were loaded into a model; names are those of the model."""

    matched: list[str] = field(default_factory=list)  # copied unchanged
    resized: list[str] = field(default_factory=list)  # copied after resizing
    partial: list[str] = field(default_factory=list)  # of a head: copied for the classes that both sides have
    missing: list[str] = field(default_factory=list)  # of the model, left at their initial values
    unexpected: list[str] = field(default_factory=list)  # of the file, not used
    notes: list[str] = field(default_factory=list)  # reasons for the last four

    def lines(self) -> list[str]:
        """The report as text."""
        changes = {
            "resized": self.resized,
            "loaded in part": self.partial,
            "missing": self.missing,
            "unexpected": self.unexpected,
        }
        counts = [
            f"{len(names)} {word} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
            for word, names in changes.items()
            if names
        ]
        return ["; ".join([f"{len(self.matched)} tensors loaded", *counts]), *self.notes]


@dataclass(frozen=True)
class Classes:
    """The names of the outputs of a file's head and of the model's; None or empty: they are not known."""

    of_file: Sequence[str] | None
    of_model: Sequence[str] | None

    def shared(self, num_in_file: int, num_in_model: int) -> list[tuple[int, int]] | None:
        """(row in the model, row in the file) of the classes that both heads have; None: their order is the same.

        So it is taken to be if only one of the heads has names.
        """
        wanted = self.of_model or ()
        names = as_spelled_by(wanted, self.of_file or ())
        if (len(names), len(wanted)) != (num_in_file, num_in_model) or [*names] == [*wanted]:
            return None
        rows = {name: row for row, name in enumerate(names)}
        return [(row, rows[name]) for row, name in enumerate(wanted) if name in rows]


def adapt(
    tensors: Tensors,
    model: nn.Module,
    report: LoadReport,
    *,
    classes: Classes,
    reset_head: bool,
    pos_resample: PosResample,
    img_size: ImageSize | None = None,
) -> None:
    """Make every change that `model` needs, in place; `img_size` is that of the weights, if it is known."""
    own = model.state_dict()
    classifiers: tuple[str, ...] = getattr(model, "classifiers", ("head",))
    _drop_mask_token(tensors, report)
    _drop_distillation(tensors, own, report)
    _rename_norm(tensors, own, report)
    heads = ("fine_tune",) if "fine_tune.weight" in own else classifiers  # a head before it must come from the file
    _settle_heads(tensors, own, heads, report, classes, reset=reset_head)
    if not any(f"{name}.weight" in tensors for name in classifiers):
        _settle_pre_logits(tensors, own, report)
    _convert_channels(tensors, own, getattr(model, "first_convs", ()), report)
    patch_size = _patch_size(tensors, model)
    _resample_patches(tensors, own, report)
    if "pos_embed" in tensors and "pos_embed" in own:
        num_prefix, wanted = getattr(model, "num_prefix_tokens", 0), getattr(model, "grid_size", None)
        grid = grid_of(tensors["pos_embed"].shape[1] - num_prefix, img_size, patch_size)
        if grid and wanted and grid != wanted and tensors["pos_embed"].shape[2] == own["pos_embed"].shape[2]:
            _resample_positions(tensors, grid, wanted, num_prefix, report, pos_resample)


def _settle_heads(
    tensors: Tensors,
    own: Mapping[str, Tensor],
    heads: tuple[str, ...],
    report: LoadReport,
    classes: Classes,
    *,
    reset: bool,
) -> None:
    """Take from the last layers of the file what belongs to classes of the model; drop the rest, with a note."""
    # "head.2" is the last layer of "head"
    whole = tuple(name.rpartition(".")[0] if name[-1].isdigit() else name for name in heads)
    label = "fine_tune" if heads == ("fine_tune",) else "head"
    if not _under(own, whole):  # fine_tune, if the file has it, belongs to the head
        heads = (*whole, "fine_tune")
        if not (found := _under(tensors, heads)):
            return
        num_classes = len(tensors[next(name for name in reversed(found) if name.endswith(".weight"))])
        reason = f"the file has {num_classes} classes, the model has no head"
    elif not _under(tensors, whole):
        heads, reason = whole, "the file has none"
    else:
        before, after = _num_classes(tensors, heads), _num_classes(own, heads)
        shared = classes.shared(before, after) if before else None
        if reset:
            reason = "reset_head is set"
        elif shared:
            _copy_rows(tensors, own, heads, shared, report)
            new = f"; {after - len(shared)} start from random values" if after > len(shared) else ""
            report.notes.append(
                f"{label}: {len(shared)} of {after} classes start from the file's rows of that name{new}"
            )
            return
        elif shared is not None:
            reason = f"the file has {before} classes, and none of them is one of the {after} of the data"
        elif before in (0, after):
            if before and classes.of_model and not classes.of_file:
                report.notes.append(
                    f"{label}: the file does not name its {before} classes; the order of the data is assumed"
                )
            return
        else:
            reason = f"the file has {before} classes, the model {after}"
    report.notes.append(f"{label} not loaded: {reason}")
    _drop(tensors, _under(tensors, heads), report)
    report.missing += _under(own, heads)


def _copy_rows(
    tensors: Tensors, own: Mapping[str, Tensor], heads: Iterable[str], rows: list[tuple[int, int]], report: LoadReport
) -> None:
    """Replace the heads of the file by those of the model with the given rows (in the model, in the file) copied."""
    to, of = (torch.tensor(indices) for indices in zip(*rows, strict=True))
    for name in _under(own, heads):
        if name in tensors:
            tensors[name] = own[name].clone().index_copy_(0, to, tensors[name][of].to(own[name].dtype))
            report.partial.append(name)


def _under(tensors: Mapping[str, Tensor], modules: Iterable[str]) -> list[str]:
    """Names of the tensors in `modules`."""
    return [name for name in tensors if name.startswith(tuple(f"{module}." for module in modules))]


def _num_classes(tensors: Mapping[str, Tensor], heads: Iterable[str]) -> int:
    return next((len(tensors[f"{head}.weight"]) for head in heads if f"{head}.weight" in tensors), 0)


def _settle_pre_logits(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """The layer before a head belongs to it: with a new head it is new too, or dropped."""
    in_file, in_model = _under(tensors, ["pre_logits"]), _under(own, ["pre_logits"])
    if in_file and not in_model:
        _drop(tensors, in_file, report)
        report.notes.append("pre_logits not loaded: they belong to the head of the file")
    elif in_model and not in_file:
        report.missing += in_model
        report.notes.append("pre_logits not loaded: the file has none")


def _drop_mask_token(tensors: Tensors, report: LoadReport) -> None:
    if MASK_TOKEN in tensors:
        _drop(tensors, [MASK_TOKEN], report)
        report.notes.append(f"{MASK_TOKEN} not loaded: only training without labels uses it")


def _drop_distillation(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """Drop the second token and head of a distilled file (DeiT) for a model without them, which loses accuracy."""
    if "dist_token" not in tensors or "dist_token" in own or "cls_token" not in own:
        return
    if "pos_embed" in tensors:
        positions = tensors["pos_embed"]
        tensors["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
        report.resized.append("pos_embed")
    _drop(tensors, [name for name in tensors if name.startswith(("dist_token", "head_dist."))], report)
    report.notes.append(
        "dist_token and head_dist not loaded: the distilled model in the file loses accuracy without them; "
        "set distilled: true to keep them"
    )


def _rename_norm(tensors: Tensors, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """timm calls the last norm `norm` before the class token is pooled, and `fc_norm` after the mean of patches."""
    for theirs, ours, pooling in (("norm", "fc_norm", "the mean of patches"), ("fc_norm", "norm", "the class token")):
        names = [f"{theirs}.weight", f"{theirs}.bias"]
        is_renamed = f"{ours}.weight" in own and f"{ours}.weight" not in tensors
        if is_renamed and all(name in tensors and name not in own for name in names):
            for name in names:
                tensors[name.replace(theirs, ours, 1)] = tensors.pop(name)
            report.notes.append(f"{theirs} loaded as {ours}: the model pools {pooling}, the file's did not")


def _convert_channels(tensors: Tensors, own: Mapping[str, Tensor], convs: Iterable[str], report: LoadReport) -> None:
    """Another number of image channels than in the file, by timm's rules (`adapt_input_conv`).

    Color to gray: the sum of the kernels. Color to more channels: the three kernels repeated, scaled so that their sum
    stays the same on average. Gray to any number: an equal share each. A gray image gives the same result.
    """
    for name in (f"{conv}.weight" for conv in convs):
        if name not in tensors or name not in own:
            continue
        kernel, channels = tensors[name], own[name].shape[1]
        in_file = kernel.shape[1]
        if in_file == channels or in_file not in (1, 3):
            continue
        if channels == 1:
            tensors[name] = kernel.sum(1, keepdim=True)
        else:
            repeated = kernel.repeat(1, -(-channels // in_file), 1, 1)
            tensors[name] = repeated[:, :channels] * (in_file / channels)
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
    """(D, C, p, p) -> (D, C, *size), such that resized patches give nearly what the original patches gave.

    Source: FlexiViT, arXiv 2212.08013, section 3.4: the pseudo-inverse of the bicubic resize.
    """
    height, width = kernel.shape[2:]
    pixels = torch.eye(height * width).unflatten(1, (1, height, width))
    resize = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).flatten(1).T
    resampled = kernel.float().flatten(2) @ torch.linalg.pinv(resize)
    return resampled.unflatten(2, size).to(kernel.dtype)


def _patch_size(tensors: Tensors, model: nn.Module) -> ImageSize | None:
    """The size of a patch in the file; that of the model if the file's patch embedding has several layers."""
    kernel = tensors.get("patch_embed.proj.weight")
    return kernel.shape[-1] if kernel is not None and kernel.ndim == 4 else getattr(model, "patch_size", None)


def _resample_positions(
    tensors: Tensors,
    grid: tuple[int, int],
    wanted: tuple[int, int],
    num_prefix: int,
    report: LoadReport,
    method: PosResample,
) -> None:
    tensors["pos_embed"] = resample_positions(tensors["pos_embed"], grid, wanted, num_prefix, method)
    report.resized.append("pos_embed")
    before, after = (f"{rows} x {columns}" for rows, columns in (grid, wanted))
    report.notes.append(f"pos_embed: {before} positions in the file, {after} in the model; resized like {method}")


def resample_positions(
    positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int], num_prefix: int, method: PosResample = "timm"
) -> Tensor:
    """(1, num_prefix + rows * columns, D) from one grid (rows, columns) to another; the rows of the prefix stay.

    It is computed in float32.
    """
    prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
    maps = patches.float().unflatten(1, grid).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    maps = F.interpolate(maps, wanted, **INTERPOLATIONS[method])
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def _drop(tensors: Tensors, names: list[str], report: LoadReport) -> None:
    report.unexpected += names
    for name in names:
        del tensors[name]
