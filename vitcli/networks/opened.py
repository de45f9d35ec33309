"""Opens whatever a user calls a model: a run, a checkpoint, a file of weights; what travels with it comes along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vitcli.catalog import model_info
from vitcli.errors import WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.networks.build import build_network
from vitcli.networks.find import open_weights
from vitcli.networks.preprocessing import PREPROCESSING, adopt_preprocessing
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.fit import converted, find_fit, fold_of
from vitcli.weights.load import load_weights
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights

#: what a checkpoint's recipe says of the network and of its data
_KNOWN = (
    "model", "layer_scale_init", *OWN_KEYS, *PREPROCESSING,
    "dataset", "data_dir", "train_split", "val_split", "val_batch_size",
)  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A trained network, ready to be used."""

    model: nn.Module  #: in eval mode, in the form its weights have
    recipe: Recipe  #: `augmentation` is its preprocessing; of a run, `dataset` is what it was trained on
    class_names: list[str]
    weights: Weights
    notes: list[str]

    @property
    def source(self) -> str:
        return self.weights.source


def open_model(source: str | Path, *, use_ema: bool | None = None) -> Opened:
    """The model that `source` names, with all of its weights.

    Args:
        source: as `--ckpt_path`: a run, a checkpoint, a file of weights of any project, or an address of one.
        use_ema: the average or the raw weights; None: the average where there is one.

    Raises:
        DataError: nothing there, or damaged. WeightsError: it fits no model of the registry, or lacks an average.
    """
    weights = open_weights(source, use_ema=use_ema)
    recipe = _recipe_of(weights)
    recipe, notes = adopt_preprocessing(recipe, weights)
    names: list[str] | None = weights.meta.get("class_names")
    num_classes = len(names) if names else _num_classes(recipe, weights)
    model, loading = load_whole(recipe, num_classes, weights)
    if not names:
        names = [f"class {number}" for number in range(num_classes)]
        notes = [*notes, "the weights do not tell the names of the classes: they are numbered"]
    return Opened(model.eval(), recipe, names, weights, [*notes, *loading])


def load_whole(recipe: Recipe, num_classes: int, weights: Weights) -> tuple[nn.Module, list[str]]:
    """The model with all of the weights in it, and notes; an image size other than theirs is adapted to.

    Raises:
        WeightsError: something is missing, or does not fit.
    """
    model = build_network(recipe, num_classes)
    if fold := fold_of(weights.tensors):
        model = reparameterize(model, fold=fold)
    report = load_weights(model, weights, pos_resample=recipe.model.pos_resample)
    resized = [name for name in report.resized if name != "pos_embed"]
    if report.missing or report.unexpected or resized:
        names = ", ".join(list(dict.fromkeys([*report.missing, *report.unexpected, *resized]))[:3])
        raise WeightsError(
            f"{weights.source} does not fit {recipe.model.model} with {num_classes} classes: {names}",
            help="; ".join(report.notes) or "validate on the data the model was trained for",
        )
    return model, report.notes


def _recipe_of(weights: Weights) -> Recipe:
    """How the network was built: by the recipe that travels with the weights, else as their tensors show."""
    known: Any = weights.meta.get("recipe")
    defaults = load_recipe()
    if isinstance(known, dict) and "model" in known:
        return defaults.changed(weights.source, **{name: known[name] for name in _KNOWN if name in known})
    fit = find_fit(weights)
    if fit is None:
        raise WeightsError(
            f"{weights.source} fits no model of the registry", help="`vitcli weights show` tells what is known of it"
        )
    if fit.options.get("num_heads", 1) is None:
        raise WeightsError(
            f"nothing tells the number of attention heads of {weights.source}",
            help="`vitcli weights convert SOURCE --to vitcli --num_heads N -o FILE` writes a file that does",
        )
    own = {name: value for name, value in fit.options.items() if name in OWN_KEYS}
    seen = fit.seen | {name: fit.options[name] for name in ("img_size", "in_chans") if fit.options.get(name)}
    info, before, known = model_info(fit.name), weights.meta.get("preprocessing", {}), preprocessing_of(weights) or {}
    channels = seen.get("in_chans", 3)
    gray = {name: known[name] for name in ("mean", "std") if name in known and channels == 1}
    return defaults.changed(
        weights.source,
        model=fit.name,
        image_resize=seen.get("img_size") or before.get("image_resize") or info.img_size,
        in_channels=channels,
        crop_pct=known.get("crop_pct", info.crop_pct),
        **gray,
        **own,
    )


def _num_classes(recipe: Recipe, weights: Weights) -> int:
    """As many as the head has rows."""
    model: Any = build_network(recipe, 2)
    name = getattr(model, "classifiers", ("",))[0]
    tensors = converted(model, weights.tensors)
    head = tensors.get("fine_tune.weight", tensors.get(f"{name}.weight"))
    if head is None:
        raise WeightsError(f"{weights.source} has no head", help="fine-tune it first: `vitcli train --ckpt_path …`")
    return len(head)
