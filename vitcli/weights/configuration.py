"""What the configuration files of timm and transformers say of a network: each of their keys is honored or refused.

Every key is in one of four lists: *honored* (here, or by `preprocessing`); *shown* by the tensors, which are what is
read; *fixed*, with the values for which the network is one of vitcli's; or *ignored*, because it has no influence on
the result. Another value of a fixed key is refused, and so is a key in none of the lists: either might change what the
network computes, and no tensor would show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitcli.errors import WeightsError
from vitcli.image_size import shortest
from vitcli.layers.activation import Activation
from vitcli.weights.timm_names import difference_of, facts_of

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """The keys of one file, or of one table in it."""

    name: str  #: of the file or table, for messages
    honored: tuple[str, ...]
    shown: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def knows(self, key: str) -> bool:
        """Whether the key is in one of the lists."""
        return key in (*self.honored, *self.shown, *self.fixed, *self.ignored)

    def check(self, config: Config, source: str) -> None:
        """Raise WeightsError for the first value that is not one of vitcli's, and for an unknown key."""
        for key, value in config.items():
            if key in self.fixed and value not in self.fixed[key]:
                only = " or ".join(repr(allowed) for allowed in self.fixed[key])
                raise refused(source, f"{self.name} says {key}: {value!r}", f"vitcli's models have {only}")
            if not self.knows(key):
                message = f"{self.name} says {key}: {value!r}"
                raise refused(source, message, "this key is not known, so the result might be wrong")


# fmt: off
TIMM = Keys(
    "config.json",
    honored=("architecture", "global_pool", "model_args", "pretrained_cfg", "label_names", "labels"),
    shown=("num_classes", "num_features"),
    ignored=("label_descriptions",),
)
TIMM_PRETRAINED = Keys(
    "pretrained_cfg",
    honored=("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"),
    shown=("num_classes", "first_conv", "classifier"),
    fixed={"label_offset": (None, 0)},
    ignored=(
        "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load",
        "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "label_names", "label_descriptions",
        "pool_size", "test_pool_size", "license", "description", "origin_url", "paper_name", "paper_ids", "notes",
    ),
)
TIMM_VIT = Keys(
    "model_args",
    honored=("img_size", "global_pool", "num_heads", "act_layer"),
    shown=(
        "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "init_values",
        "class_token", "pos_embed", "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm",
    ),
    fixed={
        "qk_norm": (False,), "scale_attn_norm": (False,), "scale_mlp_norm": (False,), "proj_bias": (True,),
        "pool_include_prefix": (False,), "embed_norm_layer": (None,), "norm_layer": (None, "layernorm"),
        "embed_layer": (None,), "block_fn": (None,), "mlp_layer": (None,), "attn_layer": (None, "attn"),
    },
    ignored=(
        "dynamic_img_size", "dynamic_img_pad", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate",
        "attn_drop_rate", "drop_path_rate", "weight_init", "fix_init", "device", "dtype",
    ),
)
TIMM_FASTVIT = Keys(
    "model_args",
    honored=(),
    shown=(
        "in_chans", "num_classes", "layers", "token_mixers", "embed_dims", "mlp_ratios", "downsamples",
        "se_downsamples", "repmixer_kernel_size", "pos_embs", "stem_use_scale_branch", "cls_ratio", "inference_mode",
    ),
    fixed={
        "down_patch_size": (7,), "down_stride": (2,), "lkc_use_act": (False,), "fork_feat": (False,),
        "global_pool": ("avg",), "norm_layer": (None,), "act_layer": (None, "gelu"),
    },
    ignored=("drop_rate", "proj_drop_rate", "drop_path_rate", "layer_scale_init_value", "img_size", "device", "dtype"),
)
HF = Keys(
    "config.json",
    honored=("num_attention_heads", "layer_norm_eps", "hidden_act", "image_size", "id2label"),
    shown=(
        "hidden_size", "num_hidden_layers", "intermediate_size", "mlp_ratio", "patch_size", "num_channels", "qkv_bias",
        "num_register_tokens", "pooler_output_size", "num_labels", "_num_labels", "label2id",
    ),
    fixed={
        "model_type": ("vit", "deit", "dinov2", "dinov2_with_registers"), "pooler_act": ("tanh",),
        "problem_type": (None, "single_label_classification", "multi_label_classification"),
        "use_swiglu_ffn": (False,), "pruned_heads": ({},), "is_encoder_decoder": (False,),
    },
    ignored=(
        "architectures", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "layerscale_value",
        "initializer_range", "encoder_stride", "use_mask_token", "apply_layernorm", "reshape_hidden_states",
        "stage_names", "out_features", "out_indices", "output_attentions", "output_hidden_states", "return_dict",
        "chunk_size_feed_forward", "transformers_version", "torch_dtype", "dtype", "_name_or_path",
        "_attn_implementation_autoset", "gradient_checkpointing", "finetuning_task",
    ),
)
# fmt: on

_POOLS = ("token", "avg", "max", "avgmax")
_ACTIVATIONS: dict[str | None, Activation] = {
    **dict.fromkeys(("gelu", "gelu_python", None), "gelu"),
    **dict.fromkeys(
        ("gelu_tanh", "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"), "gelu_tanh"
    ),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


def stated_options(config: Config, source: str) -> dict[str, Any]:
    """The options of `create_model` that a configuration states and the tensors may not show.

    img_size is (height, width). An empty configuration states nothing.

    Raises:
        WeightsError: it says something that vitcli's models do not have, or that is not known.
    """
    if not config:
        return {}
    options = _of_timm(config, source) if is_timms(config) else _of_transformers(config, source)
    return {name: value for name, value in options.items() if value is not None}


def is_timms(config: Config) -> bool:
    """Whether it is timm's config.json, not that of transformers."""
    return not {"architecture", "pretrained_cfg", "model_args"}.isdisjoint(config)


def refused(source: str, message: str, reason: str) -> WeightsError:
    """What to raise for a configuration that cannot be honored."""
    help = "correct the configuration if it is wrong; otherwise vitcli cannot use these weights"
    return WeightsError(f"{source}: {message}; {reason}", help=help)


def _of_timm(config: Config, source: str) -> dict[str, Any]:
    name = str(config.get("architecture", ""))
    args, known = (table(config, key, source) for key in ("model_args", "pretrained_cfg"))
    if name and (reason := difference_of(name)):
        raise refused(source, f"config.json says architecture: {name!r}", reason)
    if not known:  # old files have its keys in config.json itself
        known = {key: value for key, value in config.items() if TIMM_PRETRAINED.knows(key) and not TIMM.knows(key)}
    TIMM.check({key: value for key, value in config.items() if key not in known}, source)
    TIMM_PRETRAINED.check(known, source)
    is_fastvit = name.startswith("fastvit")
    (TIMM_FASTVIT if is_fastvit else TIMM_VIT).check(args, source)
    if is_fastvit:
        return {}
    stated = facts_of(name) | {"num_heads": args.get("num_heads", facts_of(name).get("num_heads"))}
    if args.get("norm_layer"):  # timm's own LayerNorm, in place of one with another eps
        stated["norm_eps"] = 1e-6
    if "act_layer" in args:
        stated["act_layer"] = _activation("act_layer", args["act_layer"], source)
    pool = args.get("global_pool", config.get("global_pool"))
    if pool is not None and pool not in _POOLS:
        reason = "this is attention pooling" if pool == "map" else f"vitcli's ViTs have {', '.join(_POOLS)}"
        raise refused(source, f"config.json says global_pool: {pool!r}", reason)
    return stated | {"global_pool": pool, "img_size": _size(args.get("img_size", known.get("input_size")))}


def _of_transformers(config: Config, source: str) -> dict[str, Any]:
    HF.check(config, source)
    return {
        "num_heads": config.get("num_attention_heads"),
        "norm_eps": config.get("layer_norm_eps"),
        "act_layer": _activation("hidden_act", config.get("hidden_act"), source),
        "img_size": _size(config.get("image_size")),
    }


def pos_resample_of(config: Config) -> str | None:
    """Whose rule resizes the positions to another size of images: DINOv2's models of transformers resize any."""
    return "transformers" if str(config.get("model_type")).startswith("dinov2") else None


def table(config: Config, key: str, source: str) -> dict[str, Any]:
    """The table in `config` under `key`; WeightsError if it is something else."""
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise refused(source, f"config.json says {key}: {found!r}", "it must be a table")
    return found


def _activation(key: str, name: Any, source: str) -> Activation:
    if isinstance(name, str | None) and name in _ACTIVATIONS:
        return _ACTIVATIONS[name]
    raise refused(source, f"config.json says {key}: {name!r}", f"vitcli has {', '.join(filter(None, _ACTIVATIONS))}")


def _size(size: Any) -> Any:
    """A side, or (height, width), of what may be (channels, height, width); the option's own check sees to the rest."""
    sides = size[-2:] if isinstance(size, list | tuple) else [size]
    return shortest(sides) if len(sides) == 2 and all(isinstance(side, int) for side in sides) else size
