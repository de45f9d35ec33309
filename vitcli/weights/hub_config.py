"""The configuration files from which timm and transformers build the model for our weights."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitcli.catalog import model_info
from vitcli.errors import WeightsError
from vitcli.image_size import ImageSize, height_and_width, in_words
from vitcli.models.vit_options import OPTIONS
from vitcli.weights.fit import Fit, known_options
from vitcli.weights.preprocessing import RESAMPLE, preprocessing_of
from vitcli.weights.read import Weights

#: timm's model of this width; `model_args` has all other options
TIMM_NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 1024: "vit_large_patch16_224"}
#: transformers' names of activations, where they are not timm's
_HF_NAMES = {"gelu_tanh": "gelu_pytorch_tanh"}
#: options that timm's configuration has elsewhere
_NOT_ARGS = ("num_classes", "distilled")


def timm_config(fit: Fit, tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Any]:
    """Content of config.json for timm.create_model("local-dir:…", pretrained=True)."""
    seen = fit.seen or _seen_of_fastvit(fit, tensors, weights)
    size, preprocessing = height_and_width(seen["img_size"]), dict(preprocessing_of(weights) or {})
    preprocessing.pop("pixel_range", None)  # which timm has not
    if preprocessing.get("interpolation") == "random":
        preprocessing["interpolation"] = "bicubic"  # as in evaluation; timm has no such filter
    architecture, args = _timm_model(fit)
    config = {
        "architecture": architecture,
        "num_classes": seen["num_classes"],
        "model_args": args,
        "pretrained_cfg": {"input_size": (seen["in_chans"], *size), **preprocessing},
    }
    names = weights.class_names
    return config | ({"label_names": names} if names else {})


def _timm_model(fit: Fit) -> tuple[str, dict[str, Any]]:
    """timm's name and its arguments; for a ViT all sizes are given."""
    if not fit.seen:
        return fit.name, {name: fit.options[name] for name in ("in_chans",) if name in fit.options}
    held = [name for name, option in OPTIONS.items() if "timm" in option.held_by and name not in _NOT_ARGS]
    args = {name: fit.seen[name] for name in held if name in fit.seen}
    args["init_values"] = args.pop("layer_scale_init", None)
    if fit.seen["distilled"]:  # it has no switches for its tokens
        return "deit_base_distilled_patch16_224", {k: v for k, v in args.items() if not k.endswith(("token", "tokens"))}
    return TIMM_NAMES.get(fit.seen["embed_dim"], "vit_base_patch16_224"), args


def _seen_of_fastvit(fit: Fit, tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Any]:
    head, stem = tensors.get("head.fc.weight"), tensors["stem.0.conv_kxk.0.conv.weight"]
    num_classes = 0 if head is None else len(head)
    size = known_options(weights).get("img_size", model_info(fit.name).img_size)
    return {"num_classes": num_classes, "in_chans": stem.shape[1], "img_size": size}


def hf_config(fit: Fit, weights: Weights) -> dict[str, Any]:
    """Content of config.json for transformers' ViT and DeiT classifiers, without a head for their plain models."""
    seen, classes = fit.seen, fit.seen["num_classes"]
    base, teacher = ("DeiT", "WithTeacher") if seen["distilled"] else ("ViT", "")
    names = weights.class_names or [f"LABEL_{i}" for i in range(classes)]
    config = {
        "architectures": [f"{base}ForImageClassification{teacher}" if classes else f"{base}Model"],
        "model_type": base.lower(),
        "hidden_size": seen["embed_dim"],
        "num_hidden_layers": seen["depth"],
        "num_attention_heads": seen["num_heads"],
        "intermediate_size": round(seen["embed_dim"] * seen["mlp_ratio"]),
        "image_size": seen["img_size"],
        "patch_size": seen["patch_size"],
        "num_channels": seen["in_chans"],
        "qkv_bias": seen["qkv_bias"],
        "layer_norm_eps": seen.get("norm_eps", 1e-6),
        "hidden_act": _HF_NAMES.get(seen["act_layer"], seen["act_layer"]),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if width := seen.get("pre_logits"):
        config |= {"pooler_output_size": width, "pooler_act": "tanh"}
    if classes:
        config |= {"id2label": {str(i): name for i, name in enumerate(names)}}
        config |= {"label2id": {name: i for i, name in enumerate(names)}}
    if weights.task == "multilabel":
        config["problem_type"] = "multi_label_classification"
    return config


def hf_preprocessor_config(preprocessing: Mapping[str, Any], img_size: ImageSize) -> dict[str, Any]:
    """Content of preprocessor_config.json: resize, crop the center, normalize.

    Raises:
        WeightsError: transformers' processors cannot resize in this way.
    """
    numbers = {name: number for number, name in RESAMPLE.items()}
    height, width = height_and_width(img_size)
    scaled = [math.floor(side / preprocessing.get("crop_pct", 1.0)) for side in (height, width)]
    mode = preprocessing.get("crop_mode", "center")
    if mode == "border" or (mode == "center" and height != width):
        message = f"hf has no crop_mode {mode} for images of {in_words(img_size)}"
        raise WeightsError(message, help="train with crop_mode: squash, or use --to timm")
    squashed = {"height": scaled[0], "width": scaled[1]}
    return {
        "image_processor_type": "DeiTImageProcessor" if mode == "squash" else "ViTImageProcessor",
        "do_resize": True,
        "size": squashed if mode == "squash" else {"shortest_edge": scaled[0]},
        "resample": numbers.get(preprocessing.get("interpolation", "bicubic"), 3),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(preprocessing["mean"]),
        "image_std": list(preprocessing["std"]),
    }
