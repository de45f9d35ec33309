"""How an image becomes the input of a network: what travels with weights, and what a training takes from them."""

from typing import Any

from vitcli.networks.precedence import PREPROCESSING, adopted_note, overlaid
from vitcli.recipe.load import Recipe
from vitcli.weights.preprocessing import KEYS, preprocessing_of
from vitcli.weights.read import Weights


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    """The values of the keys in `PREPROCESSING`; every checkpoint and artifact holds them."""
    flat = recipe.flat()
    return {name: flat[name] for name in PREPROCESSING}


def adopt_preprocessing(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """The recipe of a training that starts from `weights`, with their preprocessing where it sets none; a note."""
    recipe, changed = overlaid(recipe, preprocessing_of(weights) or {}, weights.source, over_file=False)
    return recipe, adopted_note(recipe, changed)


def adopt_of_run(recipe: Recipe, run: dict[str, Any]) -> Recipe:
    """The recipe of a run that is continued, with the values that the run adopted when it started."""
    return overlaid(recipe, {name: run[name] for name in KEYS if name in run}, "the run", over_file=False)[0]
