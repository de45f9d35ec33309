"""Which value of a recipe key is used when a recipe and trained weights disagree. Strongest first:

To use a network (validate, export, predict, bench):
    command line > stated by the weights > recipe file > shown by the shapes of the tensors > default
To start a training from weights, whose recipe describes the new network and its images:
    command line > recipe file > stated by the weights > default
"""

from collections.abc import Mapping
from typing import Any

from vitcli.errors import Place, WeightsError
from vitcli.models.registry import model_info
from vitcli.recipe.check import COMMAND_LINE, MINDCV_DEFAULT
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.configuration import pos_resample_of
from vitcli.weights.fit import fit_of
from vitcli.weights.preprocessing import KEYS, preprocessing_of, stated_size
from vitcli.weights.read import Weights

#: what only some models have
ARCHITECTURE = ("layer_scale_init", *OWN_KEYS)
#: keys that a trained network knows better than a recipe: how it is built, and what it learned and in which arithmetic,
#: which decides how it is evaluated
NETWORK = ("model", *ARCHITECTURE, "task", "quantize")
#: how an image becomes its input
PREPROCESSING = ("image_resize", "in_channels", *KEYS)
#: the images that it was trained and evaluated on
DATA = (
    "dataset", "data_dir", "train_split", "val_split", "val_labels", "val_ratio", "val_fold", "split_seed", "group_by",
    "label_separator", "batch_size", "val_batch_size",
)  # fmt: skip


def overlaid(recipe: Recipe, known: Mapping[str, Any], source: str, *, over_file: bool) -> tuple[Recipe, list[str]]:
    """`recipe` with the values in `known` for all keys that are set nowhere stronger, and the names of these keys.

    over_file: whether the values, which come from `source`, are stronger than the recipe's file.
    """
    flat = recipe.flat()
    changed = {
        name: plain(value)
        for name, value in known.items()
        if plain(value) != flat[name] and _yields(recipe.origins.get(name, MINDCV_DEFAULT), over_file)
    }
    return recipe.changed(source, **changed) if changed else recipe, list(changed)


def _yields(origin: Place | str, over_file: bool) -> bool:
    return origin == MINDCV_DEFAULT or (over_file and origin != COMMAND_LINE)


def plain(value: Any) -> Any:
    """`value` as a recipe's flat form has it."""
    return list(value) if isinstance(value, tuple) else value


def settled(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """The recipe by which the network of `weights` is built and given its images, and notes on what was not obvious."""
    stated = _stated(weights, with_data=not recipe.from_file)
    after, changed = overlaid(recipe, stated, weights.source, over_file=True)
    overruled = [name for name in changed if isinstance(recipe.origins.get(name), Place)]
    before, now = recipe.flat(), after.flat()
    notes = [
        f"`{name}`: the checkpoint was trained with {now[name]}, the recipe says {before[name]}; using {now[name]}"
        for name in overruled
    ]
    if _recipe_of(weights):
        return after, notes
    notes += adopted_note(after, [name for name in changed if name not in overruled])
    if recipe.origins.get("model", MINDCV_DEFAULT) == MINDCV_DEFAULT:  # else the user describes the architecture
        shown = {name: value for name, value in _shown(weights).items() if name not in stated}
        after, _ = overlaid(after, shown, weights.source, over_file=False)
    return after, notes + assumed_note(after, weights)


def adopted_note(recipe: Recipe, names: list[str]) -> list[str]:
    """One note on the preprocessing that was taken from weights; none where that changed nothing."""
    said = ", ".join(f"{name} {plain(recipe.get(name))}" for name in names)
    return [f"preprocessing of the weights: {said}"] if said else []


def assumed_note(recipe: Recipe, weights: Weights) -> list[str]:
    """One note with the values that are taken for the preprocessing if weights say nothing about it."""
    names = [name for name in KEYS if recipe.origins.get(name) != COMMAND_LINE and name != "pixel_range"]
    if not names or preprocessing_of(weights) is not None:
        return []
    said = ", ".join(f"{name} {plain(recipe.get(name))}" for name in names)
    return [f"the preprocessing of the weights is not known; assumed: {said}"]


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    """The values of the keys in `PREPROCESSING`; every checkpoint and artifact holds them."""
    flat = recipe.flat()
    return {name: flat[name] for name in PREPROCESSING}


def adopt_preprocessing(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """The recipe of a training that starts from `weights`, with their preprocessing where it sets none; a note."""
    known = preprocessing_of(weights) or {}
    for name in {"mean", "std"} & known.keys():
        if len(known[name]) not in (1, recipe.model.in_channels):  # the weights are for images of another kind
            known[name] = (sum(known[name]) / len(known[name]),)
    recipe, changed = overlaid(recipe, known, weights.source, over_file=False)
    return recipe, adopted_note(recipe, changed) + assumed_note(recipe, weights)


def adopt_of_run(recipe: Recipe, run: dict[str, Any]) -> Recipe:
    """The recipe of a run that is continued, with what the run adopted from its weights or saw in its images."""
    names = KEYS if recipe.model.ckpt_path else ("pixel_range",)
    return overlaid(recipe, {name: run[name] for name in names if name in run}, "the run", over_file=False)[0]


def _recipe_of(weights: Weights) -> dict[str, Any] | None:
    """The recipe in a checkpoint of this project; None for any other file. Newer keys may be among its own."""
    recipe = weights.meta.get("recipe")
    return recipe if isinstance(recipe, dict) and "model" in recipe else None


def _stated(weights: Weights, *, with_data: bool) -> dict[str, Any]:
    """What their recipe or another project's configuration says; with_data: also the images and mixed precision."""
    found, recipe = preprocessing_of(weights) or {}, _recipe_of(weights) or {}
    names = (*NETWORK, *PREPROCESSING, *(DATA if with_data else ()))
    found |= {name: recipe[name] for name in names if name in recipe} | ({"task": weights.task} if weights.task else {})
    if rule := pos_resample_of(weights.meta.get("config", {})):
        found["pos_resample"] = rule
    if with_data and recipe.get("amp", "off") != "off":
        found["amp"] = "auto"  # mixed precision if this device supports it
    return found


def _shown(weights: Weights) -> dict[str, Any]:
    """What the names and shapes of the tensors show of the network; WeightsError if that is not enough."""
    fit = fit_of(weights)
    if fit.options.get("num_heads", 1) is None:
        help = "`vitcli weights convert SOURCE --to vitcli --num_heads N -o FILE` writes a file that states it"
        raise WeightsError(f"the number of attention heads of {weights.source} is not known", help=help)
    own = {name: value for name, value in fit.options.items() if name in ARCHITECTURE}
    seen = fit.seen | {name: fit.options[name] for name in ("img_size", "in_chans") if fit.options.get(name)}
    info, stated, channels = model_info(fit.name), weights.meta.get("preprocessing", {}), seen.get("in_chans", 3)
    return {
        "model": fit.name,
        "image_resize": stated_size(weights) or seen.get("img_size") or stated.get("image_resize") or info.img_size,
        "in_channels": channels,
        "crop_pct": info.crop_pct,
        **own,
    }
