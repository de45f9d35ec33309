"""Finds the model of the registry that weights belong to, and the options it needs for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vitcli.catalog import MODEL_ARGUMENTS, model_info
from vitcli.errors import DataError, VitcliError, WeightsError
from vitcli.image_size import ImageSize, in_words
from vitcli.layers.reparam import Fold, reparameterize
from vitcli.models.registry import create_model, list_models
from vitcli.models.shapes import shapes_only
from vitcli.models.vit import VARIANTS
from vitcli.models.vit_keys import MASK_TOKEN, from_any, with_prefix_rows
from vitcli.models.vit_options import HIDDEN, hidden_of, name_and_options, options_of, usual_options
from vitcli.recipe import schema
from vitcli.recipe.describe import expectation
from vitcli.weights.configuration import stated_options
from vitcli.weights.other_parts import other_parts
from vitcli.weights.read import Weights

#: options that depend on the data, not on the model
_OF_THE_DATA = ("num_classes", "in_chans", "img_size")


@dataclass(frozen=True)
class Fit:
    """create_model(name, **options) builds the model of the weights; an option with an unknown value is None."""

    name: str
    options: dict[str, Any]  #: those that differ from the usual values of `name`
    seen: dict[str, Any]  #: all options of a ViT that its tensors and configuration show; empty for other models
    heads_assumed: bool = False  #: their number is only the usual one for the width

    def __str__(self) -> str:
        """For messages: vit_b_patch16 with qkv_bias: false."""
        shown = {key: value for key, value in self.options.items() if key not in _OF_THE_DATA}
        if shown.get("num_heads", 1) is None and "head_dim" in shown:
            shown["head_dim"] = f"{shown['head_dim']} / num_heads"
        words = ", ".join(f"{key}: {str(value).lower() if value is not None else '?'}" for key, value in shown.items())
        return f"{self.name} with {words}" if words else self.name


def find_fit(weights: Weights, *, num_heads: int | None = None) -> Fit | None:
    """The model whose tensors have the names and shapes of `weights`; None if there is none.

    For FastViT the shapes show the variant (the head and the first layer are not compared); for a ViT most options.

    Raises:
        DataError: the configuration next to the tensors has a value that is not valid for the option.
        WeightsError: it says something that vitcli's models do not have, or that the tensors contradict.
        UsageError: the number of heads does not divide the width.
    """
    known = known_options(weights) | ({"num_heads": num_heads} if num_heads else {})
    found = options_of(weights.tensors, known)
    if not found:
        others = (Fit(name, {}, {}) for name in list_models() if not name.startswith("vit_"))
        candidates = (*_fit_of_recipe(weights.meta), *others)
        fit = next((fit for fit in candidates if _has_shapes(fit, weights.tensors, whole=False)), None)
        return fit and replace(fit, options=fit.options | _channels(fit, weights.tensors))
    stated, shown = (options.get("img_size") for options in (known, found))
    if stated and stated != shown:
        positions = f"are for {in_words(shown)}" if shown else "do not match that size"
        raise WeightsError(
            f"{weights.source}: the configuration says images of {in_words(stated)}, but the positions {positions}",
            help="correct the configuration next to the weights",
        )
    name, options = name_and_options(found)
    if "num_heads" not in found:
        options["num_heads"] = None
    fit = Fit(name, options, found, heads_assumed="num_heads" in found and "num_heads" not in known)
    return fit if _has_shapes(fit, weights.tensors, whole=True) else None


def _channels(fit: Fit, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """{"in_chans": of the first layer}, if it is not the usual number."""
    model: Any = _empty(fit)
    kernels = [converted(model, tensors).get(f"{name}.weight") for name in getattr(model, "first_convs", ())]
    channels = {kernel.shape[1] for kernel in kernels if kernel is not None} - {3}
    return {"in_chans": channels.pop()} if len(channels) == 1 else {}


def fit_of(weights: Weights, *, num_heads: int | None = None) -> Fit:
    """As `find_fit`; WeightsError if there is no such model."""
    if fit := find_fit(weights, num_heads=num_heads):
        return fit
    help = "`vitcli weights show` prints what is known about it"
    raise WeightsError(f"{weights.source} fits no model of the registry{why_not(weights.tensors)}", help=help)


def why_not(tensors: Mapping[str, Tensor]) -> str:
    """The parts of `tensors` that no model of vitcli has, as the end of a sentence; empty if none is known."""
    parts = other_parts({**tensors, **from_any(tensors)})
    return f": it has {', '.join(parts)}" if parts else ""


def fold_of(names: Iterable[str]) -> Fold | None:
    """How a model with these tensor names (timm's or Apple's) was reparameterized; None: it was not."""
    names = set(names)
    if any("reparam_conv." in name or "lkb_reparam." in name for name in names):
        return "standard" if any(".bn." in name for name in names) else "full"
    is_folded_vit = "blocks.0.attn.qkv.weight" in names and "blocks.0.norm1.weight" not in names
    return "full" if is_folded_vit else None


def known_options(weights: Weights) -> dict[str, Any]:
    """The `HIDDEN` options that are certain, from our recipe, a configuration of the hub, or the names.

    Raises:
        DataError: a value is not valid for its option. WeightsError: see `stated_options`.
    """
    recipe = weights.meta.get("recipe", weights.meta.get("options", {}))
    sources: list[dict[str, Any]] = [
        {"img_size": recipe.get("image_resize")} | recipe,
        usual_options(recipe["model"]) | {"img_size": None} if recipe.get("model") in list(VARIANTS) else {},
        stated_options(weights.meta.get("config", {}), weights.source),
    ]
    known: dict[str, Any] = {}
    for name in HIDDEN:
        value = next((options[name] for options in sources if options.get(name) is not None), None)
        if value is not None:
            known[name] = _checked(name, value, weights.source)
    return known | hidden_of(weights.tensors)


def _checked(option: str, value: Any, source: str) -> Any:
    """`value` as the recipe's schema accepts it."""
    key = "image_resize" if option == "img_size" else option
    try:
        return getattr(schema.SECTIONS[schema.SECTION_OF[key]].model_validate({key: value}), key)
    except ValidationError:
        problem = f"{source}: {option} is {value!r} and must be {expectation(key)}"
        raise DataError(problem, help="correct it in the configuration next to the weights") from None


def _fit_of_recipe(meta: Mapping[str, Any]) -> list[Fit]:
    """The model in the recipe of one of our checkpoints, for models whose tensors show too little."""
    recipe: dict[str, Any] = meta.get("recipe", {})
    if recipe.get("model") not in list_models():
        return []
    names = [name for name in (*MODEL_ARGUMENTS, *model_info(recipe["model"]).options) if name in schema.SECTION_OF]
    options = {name: recipe[name] for name in names if recipe.get(name) not in (None, schema.default(name))}
    return [Fit(recipe["model"], options | {"img_size": recipe.get("image_resize")}, {})]


def _has_shapes(fit: Fit, tensors: Mapping[str, Tensor], *, whole: bool) -> bool:
    """Whether the model of `fit` has tensors of these names and shapes; not `whole`: except head and first layer."""
    try:
        model: Any = _empty(fit)
    except VitcliError:
        return False
    ignored = () if whole else (*getattr(model, "classifiers", ()), *getattr(model, "first_convs", ()))
    theirs = _shapes(converted(model, tensors, fit.seen.get("img_size")), (*ignored, MASK_TOKEN))
    ours = _shapes(model.state_dict(), ignored)
    if fold := fold_of(tensors):
        if any(theirs.get(name, shape) != shape for name, shape in ours.items()):
            return False  # folding keeps a shape or removes the name; to fold each model of the registry takes seconds
        ours = _shapes(reparameterize(model, fold=fold).state_dict(), ignored)
    return ours == theirs


def _empty(fit: Fit) -> nn.Module:
    """The model of `fit` in training form, without values."""
    options: dict[str, Any] = {**fit.options}
    if fit.options.get("num_heads", 1) is None:
        options["num_heads"] = 1  # it changes no shape
    with shapes_only():
        return create_model(fit.name, **options)


def converted(model: nn.Module, tensors: Mapping[str, Tensor], img_size: ImageSize | None = None) -> dict[str, Tensor]:
    """`tensors` under the names of `model`; `img_size` is theirs, if it is known."""
    convert = getattr(model, "convert_keys", dict)
    return with_prefix_rows(convert(tensors), img_size)


def _shapes(tensors: Mapping[str, Tensor], ignored: tuple[str, ...]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(ignored)}
