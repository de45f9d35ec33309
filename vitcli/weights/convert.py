"""Writes weights in the formats of other projects, with unchanged values, and refuses what these cannot hold."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vitcli.errors import DiskError, UsageError, WeightsError, is_disk_full
from vitcli.image_size import height_and_width, in_words
from vitcli.layers.embed import sincos2d
from vitcli.models.fastvit_keys import from_apple, to_apple
from vitcli.models.vit_google import to_google
from vitcli.models.vit_keys import from_any, num_prefix_tokens, to_hf, to_torchvision
from vitcli.models.vit_options import HIDDEN, OPTIONS, usual_options
from vitcli.weights.fit import Fit, fit_of, fold_of
from vitcli.weights.hub_config import hf_config, hf_preprocessor_config, timm_config
from vitcli.weights.hub_folder import CONFIG, PREPROCESSOR
from vitcli.weights.npz import write_npz
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import PACKED, Weights

Target = Literal["vitcli", "timm", "torchvision", "hf", "google", "apple"]
Tensors = dict[str, Tensor]

STATE_FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar")


def convert_weights(weights: Weights, to: Target, out: Path, *, num_heads: int | None = None) -> list[str]:
    """Write `weights` for `to` and return notes on the result.

    Args:
        out: timm, hf: a folder with weights and configuration. torchvision, apple: a state dict, .safetensors or .pth.
            google: .npz. vitcli: .safetensors.
        num_heads: of a ViT, if it is not known otherwise.

    Raises:
        UsageError: `out` exists or has the wrong form for the target; or `num_heads` is missing or wrong.
        WeightsError: no known model has these tensors, or the target cannot hold something in them.
    """
    check_out(to, out)
    fit = fit_of(weights, num_heads=num_heads)
    if num_heads and fit.seen.get("num_heads", num_heads) != num_heads:
        raise UsageError(f"{weights.source} has {fit.seen['num_heads']} heads", help="remove --num_heads")
    notes = list[str]()
    tensors = from_any(weights.tensors, fit.seen.get("img_size")) if fit.seen else from_apple(weights.tensors)
    if to != "vitcli" and fit.seen.get("pos_embed") == "sincos2d" and "img_size" in fit.seen:
        tensors, fit = _with_positions(tensors, fit)
        notes.append("the fixed sincos2d positions are written as learned ones")
    if fit.heads_assumed:
        heads = fit.seen["num_heads"]
        notes.append(f"num_heads {heads} assumed from the width of the attention; set --num_heads N if that is wrong")
    _check_target(weights, fit, to)
    notes += _check_options(weights, fit, to) if fit.seen else []
    with atomic(out) as draft:
        _write(to, draft, tensors, fit, weights)
    return notes + _not_kept(out, weights)


def check_out(to: Target, out: Path) -> None:
    """Raise UsageError if `out` exists or has the wrong form for the target."""
    suffixes = {"google": (".npz",), "vitcli": (".safetensors",), "timm": ("",), "hf": ("",)}.get(to, STATE_FILES)
    if out.exists():
        raise UsageError(f"{out} exists", help="use another name, or remove it first")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", help="create it first")
    if suffixes == ("",) and out.suffix in (*STATE_FILES, ".npz"):
        raise UsageError(f"{to} takes a folder, with weights and configuration", help=f"use -o {out.with_suffix('')}")
    if suffixes != ("",) and out.suffix not in suffixes:
        raise UsageError(f"{out}: {to} takes a file that ends in {' or '.join(suffixes)}")


def _with_positions(tensors: Tensors, fit: Fit) -> tuple[Tensors, Fit]:
    """Add the fixed positions to the tensors, in the form of learned ones; those of the prefix tokens are zero."""
    seen, like = fit.seen, tensors["blocks.0.norm1.weight"]
    rows, columns = (side // seen["patch_size"] for side in height_and_width(seen["img_size"]))
    prefix = like.new_zeros(1, num_prefix_tokens(tensors), len(like))
    positions = torch.cat([prefix, sincos2d((rows, columns), len(like)).to(like)], dim=1)
    return {**tensors, "pos_embed": positions}, replace(fit, seen=seen | {"pos_embed": "learned"})


def _check_target(weights: Weights, fit: Fit, to: Target) -> None:
    """WeightsError if `to` has no such model, or has it only in training form."""
    if fit.seen and to == "apple":
        help = "use --to timm, torchvision, hf, google"
        raise WeightsError("the apple format is for FastViT, and this is a ViT", help=help)
    in_projects = ("vitcli", "timm", "apple") if fit.name.startswith("fastvit") else ("vitcli",)
    if not fit.seen and to not in in_projects:
        raise WeightsError(f"{to} has no model for {fit}", help="use --to vitcli; for FastViT also timm and apple")
    fold = fold_of(weights.tensors)
    if fold and to != "vitcli" and (fold, to) != ("standard", "apple"):
        help = "use --to vitcli, or `vitcli weights unfuse` first"
        raise WeightsError(f"{weights.source} is fused (fold {fold}), which {to} cannot hold", help=help)


def _check_options(weights: Weights, fit: Fit, to: Target) -> list[str]:
    """Notes on what is not kept of a ViT; WeightsError if `to` cannot hold one of its options."""
    notes = list[str]()
    for option, usual in _limits(to, fit.seen).items():
        value = fit.seen.get(option, usual)
        if value != usual and option == "norm_eps":
            notes.append(f"the norms' eps of {value:g} is not kept: {to} always uses {usual:g}")
        elif value != usual:
            # the tensors show only that there are layer scales, not their initial value
            shown = option if option == "layer_scale_init" else f"{option}: {value}"
            help = "use --to vitcli or --to timm" if to != "timm" else "use --to vitcli"
            raise WeightsError(f"{weights.source} has {shown}, which {to} cannot hold", help=help)
    size = fit.seen.get("img_size", 0)
    if to in ("torchvision", "google") and not isinstance(size, int):
        raise WeightsError(f"{to} takes square images, not {in_words(size)}", help="use --to timm, hf or vitcli")
    if to == "torchvision" and not fit.seen.get("num_classes"):
        help = "use --to timm, hf or vitcli"
        raise WeightsError("torchvision's model always has a head, and this file has none", help=help)
    if to != "vitcli" and to != "torchvision" and fit.seen.get("num_heads") is None:
        raise UsageError("the file does not show the number of attention heads", help="add --num_heads N")
    return notes


def _limits(to: Target, seen: Mapping[str, Any]) -> dict[str, Any]:
    """The options for which `to` has one value only, and that value."""
    if to == "vitcli":
        return {}
    usual = usual_options()
    limits = {name: usual[name] for name, option in OPTIONS.items() if to not in option.held_by}
    if to == "hf" and not seen.get("num_classes"):
        del limits["pre_logits"]  # without a head it is a ViTModel, and they are its pooler
    if to == "timm" and seen["distilled"]:
        limits["reg_tokens"] = usual["reg_tokens"]
    return limits


def _not_kept(out: Path, weights: Weights) -> list[str]:
    """Notes on what a file of tensors only cannot hold."""
    known, notes = preprocessing_of(weights) or {}, list[str]()
    if weights.task == "multilabel" and out.suffix != ".safetensors":
        notes.append(
            f"{out.name} cannot hold the thresholds of its classes; where vitcli reads it, add --task multilabel"
        )
    if out.is_dir() and known.get("pixel_range", "auto") != "auto":
        return [*notes, f"{out.name} cannot hold pixel_range {list(known['pixel_range'])}; note it"]
    if out.is_dir() or out.suffix == ".safetensors":
        return notes
    if names := weights.class_names:
        notes.append(f"{out.name} cannot hold the {len(names)} class names")
    if known:
        lists = {name: list(value) for name, value in known.items() if isinstance(value, tuple)}
        shown = ", ".join(f"{name} {value}" for name, value in (known | lists).items())
        notes.append(f"{out.name} cannot hold the preprocessing; note it: {shown}")
    return notes


def _write(to: Target, out: Path, tensors: Tensors, fit: Fit, weights: Weights) -> None:
    facts = _facts(fit, weights)
    match to:
        case "vitcli":
            _save(out, tensors, facts)
        case "torchvision":
            _save(out, to_torchvision(tensors), facts)
        case "apple":
            _save(out, to_apple(tensors), facts, wrapper="state_dict")
        case "google":
            write_npz(out, to_google(tensors, fit.seen["num_heads"]))
        case "timm":
            out.mkdir()
            _save(out / "model.safetensors", tensors, {})
            _write_json(out / CONFIG, timm_config(fit, tensors, weights))
        case "hf":
            out.mkdir()
            _save(out / "model.safetensors", to_hf(tensors), {})
            _write_json(out / CONFIG, hf_config(fit, weights))
            if preprocessing := preprocessing_of(weights):
                _write_json(out / PREPROCESSOR, hf_preprocessor_config(preprocessing, fit.seen["img_size"]))


def _facts(fit: Fit, weights: Weights) -> dict[str, Any]:
    """What the tensors do not show, for the metadata of a safetensors file."""
    hidden = {name: fit.seen[name] for name in HIDDEN if fit.seen.get(name) is not None}
    facts = {"model": fit.name, "class_names": weights.class_names or None, "options": hidden}
    known = weights.meta.get("preprocessing", weights.meta.get("recipe", {}))
    size = {"image_resize": known["image_resize"]} if known.get("image_resize") else {}  # not in the tensors
    facts["preprocessing"] = (preprocessing_of(weights) or {}) | size
    if weights.task == "multilabel":
        facts |= {"task": weights.task, "findings": weights.meta.get("findings")}
    return {name: fact for name, fact in facts.items() if fact}


def _save(path: Path, tensors: Tensors, facts: Mapping[str, Any], *, wrapper: str | None = None) -> None:
    if path.suffix == ".safetensors":
        packed = {PACKED: json.dumps(facts)} if facts else {}
        save_file(_apart(tensors), path, {"format": "pt", **packed})
    else:
        torch.save({wrapper: tensors} if wrapper else tensors, path)


def _apart(tensors: Mapping[str, Tensor]) -> Tensors:
    """`tensors`, none of which shares memory with another: safetensors has no such tensors."""
    apart: Tensors = {}
    taken = set[int]()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in taken else tensor.contiguous()
        taken.add(memory)
    return apart


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def atomic(out: Path) -> Iterator[Path]:
    """A temporary path, which is renamed to `out` if all goes well and removed if not; errors of the disk in words."""
    draft = out.with_name(f".{out.stem}-{os.getpid()}{out.suffix}")
    try:
        yield draft
        draft.replace(out)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskError(f"the disk is full: {out} was not written") from None
        raise UsageError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
