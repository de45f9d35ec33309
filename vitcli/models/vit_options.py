"""What is known of the options of a ViT: which tensors show them, and which formats of other projects can hold them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor

from vitcli.catalog import model_info
from vitcli.errors import UsageError
from vitcli.image_size import shortest
from vitcli.models.registry import create_model
from vitcli.models.vit import VARIANTS, create
from vitcli.models.vit_google import num_heads_of
from vitcli.models.vit_keys import family_of, from_any, grid_of, num_prefix_tokens
from vitcli.models.vit_pytorch_keys import hidden_options


@dataclass(frozen=True)
class Option:
    """An argument of `create_model` that decides which tensors a ViT has, or what it computes from them."""

    held_by: tuple[str, ...] = ()  #: formats that can hold every value; the others only the usual one
    hidden: bool = False  #: the tensors do not show it, or not always


_ALL = ("timm", "torchvision", "hf", "google")
OPTIONS = {
    "img_size": Option(_ALL, hidden=True),
    "in_chans": Option(_ALL),
    "num_classes": Option(_ALL),
    "patch_size": Option(_ALL),
    "embed_dim": Option(_ALL),
    "depth": Option(_ALL),
    "num_heads": Option(_ALL, hidden=True),
    "mlp_ratio": Option(_ALL),
    "distilled": Option(("timm", "hf")),
    "qkv_bias": Option(("timm", "hf")),
    "global_pool": Option(("timm",), hidden=True),
    "fc_norm": Option(("timm",)),
    "pre_norm": Option(("timm",)),
    "class_token": Option(("timm",)),
    "reg_tokens": Option(("timm",)),
    "layer_scale_init": Option(("timm",)),
    "pre_logits": Option(("torchvision", "google")),
    "norm_eps": Option(("hf",), hidden=True),
    "act_layer": Option(("timm", "hf"), hidden=True),
    "pos_embed": Option(hidden=True),
    "attn_scale": Option(hidden=True),
    "patch_embed": Option(),
    "patch_norm": Option(),
    "head_dim": Option(),
    "final_norm": Option(),
    "head_hidden": Option(),
    "fine_tune_from": Option(),
}
HIDDEN = tuple(name for name, option in OPTIONS.items() if option.hidden)


def usual_options(name: str = "vit_b_patch16") -> dict[str, Any]:
    """All arguments of `create_model` with the values of the registry's `name`."""
    arguments = {**signature(create).parameters, **signature(create_model).parameters}
    defaults = {key: argument.default for key, argument in arguments.items()}
    variant = VARIANTS[name]
    return defaults | vars(variant) | {"img_size": model_info(name).img_size, "class_token": True}


def hidden_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Those of the `HIDDEN` options that these tensors or their names show."""
    if "blocks.0.attn.scale" in tensors:
        return {"num_heads": len(tensors["blocks.0.attn.scale"]), "attn_scale": "learned"}
    if family_of(tensors) == "vit-pytorch":
        return hidden_options(tensors)
    heads = num_heads_of(tensors)
    return {"num_heads": heads} if heads else {}


def options_of(tensors: Mapping[str, Tensor], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The `OPTIONS` that tensors show, under the names of any project; empty if they are not those of a ViT.

    Hidden ones are taken from `known`. If they are not there either, the number of heads is the usual one for the
    width, if there is one, and the eps of the norms is missing.

    Raises:
        UsageError: the known number of heads does not divide the width.
    """
    tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}  # only shapes matter
    family, own = family_of(tensors), from_any(tensors, (known or {}).get("img_size"))
    if family is None or not {"blocks.0.mlp.fc1.weight", "blocks.0.attn.proj.weight"} <= own.keys():
        return {}
    hidden, dim = own["blocks.0.mlp.fc1.weight"].shape
    found: dict[str, Any] = {
        "embed_dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in own if name.startswith("blocks.")),
        "mlp_ratio": hidden / dim,
        "class_token": "cls_token" in own,
        "global_pool": "avg" if "fc_norm.weight" in own or "cls_token" not in own else "token",
        "pre_norm": "norm_pre.weight" in own,
        "distilled": "dist_token" in own,
        "reg_tokens": own["reg_token"].shape[1] if "reg_token" in own else 0,
        "qkv_bias": "blocks.0.attn.qkv.bias" in own,
        "layer_scale_init": 1e-5 if "blocks.0.ls1.gamma" in own else None,
        "final_norm": "norm.weight" in own or "fc_norm.weight" in own,
    }
    found |= {"pos_embed": "none", "attn_scale": "head", "act_layer": "gelu", **(known or {}), **hidden_of(tensors)}
    if found["global_pool"] != "token" and found["final_norm"]:
        found["fc_norm"] = "fc_norm.weight" in own
    usual_head_dim = 64 if family == "vit-pytorch" and found["attn_scale"] == "head" else None  # at any width
    found |= _patches(own) | _head(own)
    if "pos_embed" in own:
        num_positions, patch_size = own["pos_embed"].shape[1] - num_prefix_tokens(own), found.get("patch_size")
        grid = grid_of(num_positions, found.get("img_size"), patch_size)
        found["pos_embed"] = "learned"
        found["img_size"] = shortest([side * patch_size for side in grid]) if grid and patch_size else None
    found |= _heads(own, found.get("num_heads"), usual_head_dim)
    return {name: value for name, value in found.items() if value is not None}


def name_and_options(found: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name in the registry closest to what `options_of` found, and the options in which it still differs."""
    sizes = (found["embed_dim"], found["depth"])
    same_size = [name for name, row in VARIANTS.items() if (row.embed_dim, row.depth) == sizes]
    same_width = [name for name, row in VARIANTS.items() if row.embed_dim == found["embed_dim"]]
    names = same_size or same_width or [name for name in VARIANTS if name.startswith("vit_b_")]
    by_patch = {VARIANTS[name].patch_size: name for name in names}
    name = by_patch.get(found.get("patch_size", 16), by_patch[16])
    usual = usual_options(name) | {"class_token": found.get("global_pool", "token") == "token"}
    return name, {key: value for key, value in found.items() if value != usual[key]}


def _patches(own: Mapping[str, Tensor]) -> dict[str, Any]:
    if "patch_embed.proj.0.weight" in own:
        kernels = [t.shape[-1] for name, t in own.items() if name.startswith("patch_embed.proj.") and t.ndim == 4]
        in_chans = own["patch_embed.proj.0.weight"].shape[1]
        if "patch_embed.proj.0.bias" in own:
            return {"patch_embed": "hmlp", "patch_size": math.prod(kernels), "in_chans": in_chans}
        return {"patch_embed": "conv", "patch_size": 2 ** kernels.count(3), "in_chans": in_chans}
    kernel = own.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4:
        return {}
    norms = [f"patch_embed.{name}.weight" in own for name in ("norm_in", "norm")]
    shifted = norms == [True, False]
    return {
        "patch_size": kernel.shape[-1],
        "in_chans": kernel.shape[1] // 5 if shifted else kernel.shape[1],
        "patch_embed": "spt" if shifted else "linear",
        "patch_norm": norms[1],  # fully folded, norm_in has no weights
    }


def _heads(own: Mapping[str, Tensor], num_heads: int | None, usual_head_dim: int | None) -> dict[str, Any]:
    dim, inner = own["blocks.0.attn.proj.weight"].shape
    if num_heads and inner % num_heads:
        raise UsageError(f"a width of {inner} cannot be split into {num_heads} heads", help="change num_heads")
    if not num_heads and usual_head_dim and inner % usual_head_dim == 0:
        num_heads = inner // usual_head_dim
    known = {row.embed_dim: row.num_heads for row in VARIANTS.values()}
    num_heads = num_heads or (known.get(dim) if inner == dim else None)
    return {"num_heads": num_heads, "head_dim": inner // (num_heads or 1) if inner != dim else None}


def _head(own: Mapping[str, Tensor]) -> dict[str, Any]:
    last = next((own[name] for name in ("head.2.weight", "head.weight") if name in own), None)
    stacked = own.get("fine_tune.weight")
    return {
        "num_classes": 0 if last is None else len(last if stacked is None else stacked),
        "head_hidden": own["head.0.weight"].shape[0] if "head.0.weight" in own else None,
        "pre_logits": len(own["pre_logits.fc.weight"]) if "pre_logits.fc.weight" in own else None,
        "fine_tune_from": stacked.shape[1] if stacked is not None else None,
    }
