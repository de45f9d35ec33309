"""How an image becomes the input of a network: what travels with weights, and what a recipe takes from them."""

from typing import Any

from vitcli.recipe.check import MINDCV_DEFAULT
from vitcli.recipe.load import Recipe
from vitcli.weights.preprocessing import KEYS, preprocessing_of
from vitcli.weights.read import Weights

#: recipe keys that say how an image becomes the network's input; they travel with every checkpoint
PREPROCESSING = ("image_resize", "crop_pct", "interpolation", "mean", "std", "in_channels")


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    """The values of `PREPROCESSING`."""
    flat = recipe.flat()
    return {name: flat[name] for name in PREPROCESSING}


def adopt_preprocessing(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """The recipe with the preprocessing of `weights`, for keys that neither file nor command line set; a note."""
    return _adopt(recipe, preprocessing_of(weights) or {}, weights.source)


def adopt_of_run(recipe: Recipe, run: dict[str, Any]) -> Recipe:
    """The recipe of a run that is continued, with what the run adopted when it began."""
    return _adopt(recipe, {name: run[name] for name in KEYS if name in run}, "the run")[0]


def _adopt(recipe: Recipe, known: dict[str, Any], source: str) -> tuple[Recipe, list[str]]:
    flat = recipe.flat()
    taken = {
        name: value
        for name, value in known.items()
        if recipe.origins.get(name, MINDCV_DEFAULT) == MINDCV_DEFAULT and _plain(value) != flat[name]
    }
    said = ", ".join(f"{name} {_plain(value)}" for name, value in taken.items())
    return recipe.changed(source, **taken), [f"preprocessing of the weights: {said}"] if taken else []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
