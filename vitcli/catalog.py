"""What exists by name, and where it is: known without importing it (or torch).

A recipe may use these names. A row here makes a name known, and so do two kinds of plugins: installed packages, by
entry points in the group `vitcli.KIND`, and files given with `--plugin`, which `recipe/plugins.py` adds.
"""

import difflib
import importlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any

from vitcli.errors import UsageError, plugin_errors_in_words


@dataclass(frozen=True)
class Family:
    """Models that one function builds."""

    create: str  #: "module:function"
    options: tuple[str, ...] = ()  #: arguments of `create` besides `MODEL_ARGUMENTS`; recipe keys have the same names


@dataclass(frozen=True)
class Sizes:
    """Of a model with 1000 classes at its own image size."""

    num_parameters: int  #: in training form
    num_fused_parameters: int  #: reparameterized
    gmacs: float  #: of the latter, for one image: convolutions and matrix products


@dataclass(frozen=True)
class Model:
    """A model as it was published."""

    family: Family
    img_size: int  #: px, side of the square image
    crop_pct: float  #: side of the center crop / shorter side of the resized image, in evaluation
    sizes: Sizes | None = None  #: of a plugin's model they are not known before it is built

    @property
    def options(self) -> tuple[str, ...]:
        return self.family.options


#: the arguments that every model is created with
MODEL_ARGUMENTS = (
    "num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "layer_scale_init", "grad_checkpointing",
)  # fmt: skip

FASTVIT = Family("vitcli.models.fastvit:create")
# fmt: off
VIT = Family("vitcli.models.vit:create", options=(
    "embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "patch_embed", "patch_norm", "pos_embed",
    "global_pool", "fc_norm", "pre_norm", "class_token", "distilled", "reg_tokens", "qkv_bias", "attn_scale",
    "head_dim", "norm_eps", "act_layer", "final_norm", "pre_logits", "head_hidden", "head_bias_init", "fine_tune_from",
    "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_mode", "patch_drop_rate", "patch_drop_mode",
    "transformer",
))
FVIT = Family("vitcli.models.fvit:create", options=(
    "grid_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "head_hidden", "patch_drop_rate", "patch_drop_mode",
    "auto_encode",
))

# Image sizes and crops: Apple's released code for FastViT, timm's published weights for the ViTs.
MODELS: dict[str, Model] = {
    #                                   px  crop        parameters, reparameterized, GMACs
    "fastvit_t8":     Model(FASTVIT, 256, 0.90, Sizes(  4_026_232,   3_996_040,   0.685)),
    "fastvit_t12":    Model(FASTVIT, 256, 0.90, Sizes(  7_553_704,   7_508_840,   1.391)),
    "fastvit_s12":    Model(FASTVIT, 256, 0.90, Sizes(  9_473_576,   9_428_712,   1.794)),
    "fastvit_sa12":   Model(FASTVIT, 256, 0.90, Sizes( 11_580_968,  11_545_320,   1.937)),
    "fastvit_sa24":   Model(FASTVIT, 256, 0.90, Sizes( 21_554_216,  21_501_288,   3.762)),
    "fastvit_sa36":   Model(FASTVIT, 256, 0.95, Sizes( 31_527_464,  31_457_256,   5.587)),
    "fastvit_ma36":   Model(FASTVIT, 256, 0.95, Sizes( 44_068_004,  43_984_632,   7.815)),
    "fvit":           Model(FVIT,    32,  1.00, Sizes(  2_106_088,   2_106_088,   0.020)),
    "vit_ti_patch32": Model(VIT,     224, 0.90, Sizes(  6_131_560,   6_131_560,   0.287)),
    "vit_ti_patch16": Model(VIT,     224, 0.90, Sizes(  5_717_416,   5_717_416,   1.167)),
    "vit_ti_patch14": Model(VIT,     224, 0.90, Sizes(  5_694_376,   5_694_376,   1.578)),
    "vit_s_patch32":  Model(VIT,     224, 0.90, Sizes( 22_878_952,  22_878_952,   1.069)),
    "vit_s_patch16":  Model(VIT,     224, 0.90, Sizes( 22_050_664,  22_050_664,   4.280)),
    "vit_s_patch14":  Model(VIT,     224, 0.90, Sizes( 22_004_584,  22_004_584,   5.696)),
    "vit_m_patch32":  Model(VIT,     224, 0.90, Sizes( 39_942_120,  39_942_120,   1.865)),
    "vit_m_patch16":  Model(VIT,     224, 0.90, Sizes( 38_837_736,  38_837_736,   7.438)),
    "vit_m_patch14":  Model(VIT,     224, 0.90, Sizes( 38_776_296,  38_776_296,   9.852)),
    "vit_b_patch32":  Model(VIT,     224, 0.90, Sizes( 88_224_232,  88_224_232,   4.116)),
    "vit_b_patch16":  Model(VIT,     224, 0.90, Sizes( 86_567_656,  86_567_656,  16.348)),
    "vit_b_patch14":  Model(VIT,     224, 0.90, Sizes( 86_475_496,  86_475_496,  21.551)),
    "vit_l_patch32":  Model(VIT,     224, 0.90, Sizes(306_535_400, 306_535_400,  14.859)),
    "vit_l_patch16":  Model(VIT,     224, 0.90, Sizes(304_326_632, 304_326_632,  59.420)),
    "vit_l_patch14":  Model(VIT,     224, 0.90, Sizes(304_203_752, 304_203_752,  78.194)),
    "vit_h_patch32":  Model(VIT,     224, 0.90, Sizes(634_960_360, 634_960_360,  31.047)),
    "vit_h_patch16":  Model(VIT,     224, 0.90, Sizes(632_199_400, 632_199_400, 124.005)),
    "vit_h_patch14":  Model(VIT,     224, 0.90, Sizes(632_045_800, 632_045_800, 162.932)),
}
# fmt: on

#: "module:attribute"; an attribute that is a dict holds the thing under its name
TRANSFORMERS = {
    "linformer": "vitcli.models.transformers:build_linformer",
    "nystrom": "vitcli.models.transformers:build_nystrom",
    "performer": "vitcli.models.transformers:build_performer",
}
OPTIMIZERS: dict[str, str] = dict.fromkeys(
    (
        "adamw", "adam", "nadam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "lamb", "lars", "muon",
        "adamw_bf16", "adamw_fp8", "adamw_8bit", "adamw_4bit",
    ),
    "vitcli.optim.optimizers:build_optimizer",
)  # fmt: skip
SCHEDULES: dict[str, str] = dict.fromkeys(
    (
        "cosine_decay", "linear_decay", "polynomial_decay", "exponential_decay", "step_decay", "multi_step_decay",
        "constant", "one_cycle",
    ),
    "vitcli.optim.schedule:learning_rate",
)  # fmt: skip
SOURCES = {
    "imagefolder": "vitcli.data.sources.folder:open_folder",
    "imagenet": "vitcli.data.sources.folder:open_folder",
    **dict.fromkeys(("csv", "jsonl", "parquet"), "vitcli.data.sources.table:open_table"),
    "packed": "vitcli.data.sources.packed:open_packed",
    "archive": "vitcli.data.sources.archive:open_archive",
    "webdataset": "vitcli.data.sources.webdataset:open_webdataset",
    "hf": "vitcli.data.sources.hugging_face:open_hugging_face",
    "digits": "vitcli.data.sources.digits:open_digits",
    "cifar10": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "cifar100": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "mnist": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "fashion_mnist": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "synthetic": "vitcli.data.sources.synthetic:open_synthetic",
}
TASKS = {
    "classification": "vitcli.tasks.classification:Classification",
    "multilabel": "vitcli.tasks.multilabel:MultiLabel",
    "byol": "vitcli.tasks.byol:Byol",
}
EVALUATORS = {
    "top1": "vitcli.evaluators.top1:Top1",
    "multilabel": "vitcli.evaluators.multilabel:MultiLabel",
    "knn": "vitcli.evaluators.knn:Knn",
    "linear_probe": "vitcli.evaluators.linear_probe:LinearProbe",
    "collapse": "vitcli.evaluators.collapse:Collapse",
}
SINKS = {
    "tensorboard": "vitcli.sinks.tensorboard:TensorBoard",
    "wandb": "vitcli.sinks.wandb:Wandb",
    "mlflow": "vitcli.sinks.mlflow:MLflow",
    "trackio": "vitcli.sinks.trackio:Trackio",
}

#: kind -> name -> where it is; of a model also what is known of it
TABLES: dict[str, dict[str, Any]] = {
    "models": MODELS,
    "transformers": TRANSFORMERS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "sources": SOURCES,
    "tasks": TASKS,
    "evaluators": EVALUATORS,
    "sinks": SINKS,
}
#: the kinds that plugins may add to
PLUGIN_KINDS = ("models", "transformers", "sources", "tasks", "evaluators", "sinks")


def names(kind: str) -> tuple[str, ...]:
    """All names of this kind: those of vitcli, of plugin files, and of installed packages."""
    return (*TABLES[kind], *_installed()[kind])


def load(kind: str, name: str) -> Any:
    """Import what the row `name` of the table `kind` stands for; of a model, the function that creates it.

    Raises:
        UsageError: there is no such name, or the plugin that has it cannot be imported.
    """
    row = _row(kind, name)
    where = row.family.create if isinstance(row, Model) else row
    module, _, attribute = where.partition(":")
    provider = _package(_installed()[kind].get(name))
    in_words = plugin_errors_in_words(module, f"{provider} provides the {_one(kind)} {name!r} as {where}")
    with nullcontext() if is_ours(module) else in_words:
        found = getattr(importlib.import_module(module), attribute)
    return found[name] if isinstance(found, dict) else found


def is_ours(module: str) -> bool:
    """Whether the module belongs to vitcli and not to a plugin."""
    return module.partition(".")[0] == "vitcli"


def model_info(name: str) -> Model:
    """What is known of a model without building it. For a plugin's model, the plugin is imported.

    Raises:
        UsageError: there is no such model; or the plugin's `create` or its row in VARIANTS is incomplete.
    """
    row = _row("models", name)
    if isinstance(row, Model):
        return row
    create = load("models", name)
    module = sys.modules[create.__module__]
    with plugin_errors_in_words(module.__name__, f"VARIANTS[{name!r}] needs img_size and crop_pct"):
        variant = module.VARIANTS[name]
        img_size, crop_pct = variant.img_size, variant.crop_pct
    arguments = inspect.signature(create).parameters.values()
    options = tuple(argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY)
    if missing := [argument for argument in MODEL_ARGUMENTS if argument not in options]:
        help = f"every model is created as create(name, *, {', '.join(MODEL_ARGUMENTS)}, ...)"
        raise UsageError(f"{module.__file__}: the function `create` has no argument {', '.join(missing)}", help=help)
    return Model(Family(row, tuple(option for option in options if option not in MODEL_ARGUMENTS)), img_size, crop_pct)


def nearest(word: object, names: Sequence[str]) -> str | None:
    """The name that was probably meant by `word`: with two letters exchanged, or else the most similar one."""
    word, known = str(word).lower(), {name.lower(): name for name in reversed(names)}
    exchanged = [name for name in known if _is_exchanged(word, name)]
    matches = exchanged or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return known[matches[0]] if matches else None


def _is_exchanged(word: str, name: str) -> bool:
    """Whether two neighboring letters of `name` are exchanged in `word`, and nothing else differs."""
    if len(word) != len(name):
        return False
    first = next((i for i in range(len(word)) if word[i] != name[i]), len(word))
    return word[first:] == name[first : first + 2][::-1] + name[first + 2 :] and word != name


def forget_installed() -> None:
    """Look for installed plugins again at the next question."""
    _installed.cache_clear()


def _row(kind: str, name: str) -> Any:
    rows = TABLES[kind] | {name: point.value for name, point in _installed()[kind].items()}
    if name in rows:
        return rows[name]
    likely = nearest(name, list(rows))
    help = f"did you mean {likely!r}?" if likely else f"known {kind}: {', '.join(rows)}"
    if kind in PLUGIN_KINDS:
        help += f"\na {_one(kind)} from a plugin file needs --plugin FILE"
    raise UsageError(f"no {_one(kind)} is named {name!r}", help=help)


def _one(kind: str) -> str:
    return kind.removesuffix("s")


def _package(point: EntryPoint | None) -> str:
    if point is None:
        return "a plugin file"
    return f"the installed package {point.dist.name}" if point.dist else "an installed package"


@cache
def _installed() -> dict[str, dict[str, EntryPoint]]:
    """Kind -> name -> the entry point by which an installed package adds it. No package is imported."""
    found: dict[str, dict[str, EntryPoint]] = {kind: {} for kind in TABLES}
    for point in (point for package in distributions() for point in package.entry_points):
        program, _, kind = point.group.partition(".")
        if program != "vitcli":
            continue
        if kind not in PLUGIN_KINDS:
            groups = ", ".join(f"vitcli.{kind}" for kind in PLUGIN_KINDS)
            message = f"{_package(point)} has the entry point {point.name!r} in the group {point.group!r}"
            raise UsageError(f"{message}, which vitcli does not know", help=f"the groups are {groups}")
        first = found[kind].setdefault(point.name, point)
        if point.name in TABLES[kind] or point.value != first.value:
            message = f"{_package(point)} adds the {_one(kind)} {point.name!r}, but this name is taken"
            raise UsageError(message, help="uninstall the package, or rename its entry point")
    return found
