"""`vitcli validate`: the accuracy of a checkpoint, counted image by image."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vitcli.data.crops import Crops
from vitcli.data.datasets import build_val
from vitcli.data.source import Source
from vitcli.distributed import joined, num_launched
from vitcli.engine.failures import memory_in_words
from vitcli.engine.precision import build_autocast
from vitcli.engine.preflight import check_device, check_launch
from vitcli.engine.run_dir import write_result
from vitcli.errors import DataError, UsageError
from vitcli.evaluators.evaluator import Setting
from vitcli.evaluators.top1 import SINGLE_CROP, EvalResult, Top1
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.reparam import reparameterize
from vitcli.log import Reporter
from vitcli.networks.build import float_layers
from vitcli.networks.classes import check_num_classes
from vitcli.networks.find import open_weights
from vitcli.networks.opened import load_whole
from vitcli.networks.preprocessing import PREPROCESSING, adopt_preprocessing
from vitcli.recipe.check import COMMAND_LINE
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.read import Weights

#: what a checkpoint knows better than a recipe file: how the network was built and what it was fed
_OF_THE_WEIGHTS = ("model", "quantize", "layer_scale_init", *OWN_KEYS, *PREPROCESSING)
#: what it can also supply when no recipe file is given
_OF_THE_DATA = ("dataset", "data_dir", "train_split", "val_split", "batch_size", "val_batch_size")

Fold = Literal["none", "standard", "full"]


def validate(
    recipe: Recipe,
    *,
    fold: Fold = "none",
    use_ema: bool | None = None,
    crops: Crops | None = None,
    json_file: Path | None = None,
) -> EvalResult:
    """Evaluate `recipe.model.ckpt_path` on the validation split.

    Args:
        recipe: what the checkpoint knows itself (architecture, preprocessing, classes) wins over the recipe's file;
            what was set on the command line wins over both.
        fold: evaluate the training form, or reparameterized ("standard", "full").
        use_ema: the average or the raw weights; None: the average where there is one.
        crops: classify each image by the average of many crops; the single crop is reported beside it.
        json_file: also write the result there.

    Raises:
        VitcliError: see `errors.py`.
    """
    if recipe.model.ckpt_path is None:
        raise UsageError("nothing to validate", help="give --ckpt_path: a run, a checkpoint or a weights file")
    if json_file and not json_file.parent.is_dir():
        raise UsageError(f"cannot write {json_file}: there is no folder {json_file.parent}")
    launch_notes = check_launch(recipe)
    with joined(recipe.system.device, num_launched() > 1) as world:
        reporter = Reporter(enabled=world.is_main)
        reporter.notes(recipe.notes)
        weights = open_weights(recipe.model.ckpt_path, use_ema=use_ema)
        recipe, adopted = _adopt(recipe, weights)
        recipe, preprocessing = adopt_preprocessing(recipe, weights)
        reporter.notes(launch_notes, adopted, preprocessing, check_device(recipe, world.device))
        images = _images(recipe, weights)
        reporter.notes(images.notes)
        num_classes = (
            len(images.class_names) if "class_names" in weights.meta else check_num_classes(recipe, images.class_names)
        )
        model, loading = load_whole(recipe, num_classes, weights)
        reporter.notes(loading)
        if fold != "none":
            model = reparameterize(model, fold=fold)
        if recipe.model.quantize == "int8_qat":
            reporter.say(simulate_int8(model, keep_float=float_layers(model)))
        with memory_in_words("lower --val_batch_size"):
            evaluator = Top1(Setting(recipe, images, world, build_autocast(recipe, world.device), crops=crops))
            numbers = evaluator(model.to(world.device).eval())
        reporter.table("validation", [*_rows(recipe, weights, fold), *evaluator.rows(numbers)])
        result = EvalResult.of(numbers)
        if json_file and world.is_main:
            facts = result.as_dict() | {"ckpt_path": weights.source, "fold": fold, "quantize": recipe.model.quantize}
            write_result(json_file, facts | (_crop_facts(crops, numbers) if crops else {}))
        return result


def _crop_facts(crops: Crops, numbers: dict[str, float]) -> dict[str, Any]:
    return {
        "eval_crops": crops.protocol,
        "crop_scales": list(crops.used_scales),
        "crop_average": crops.average,
        "num_crops": crops.num_crops,
        "single_crop": EvalResult.of(numbers, SINGLE_CROP).as_dict(),
    }


def _adopt(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """The recipe with what the checkpoint knows better, and a note for each value of the file that it overrules."""
    known = weights.meta.get("recipe")
    if not isinstance(known, dict):  # not a checkpoint of ours
        known = {}
    names = _OF_THE_WEIGHTS if recipe.from_file else _OF_THE_WEIGHTS + _OF_THE_DATA
    flat = recipe.flat()
    better = {
        name: known[name]
        for name in names
        if name in known and known[name] != flat[name] and recipe.origins.get(name) != COMMAND_LINE
    }
    if known.get("amp", "off") != "off" and not recipe.from_file and recipe.origins.get("amp") != COMMAND_LINE:
        better["amp"] = "auto"  # mixed precision where this device has it
    notes = [
        f"`{name}`: the checkpoint was trained with {value}, the recipe says {flat[name]}; using {value}"
        for name, value in better.items()
        if recipe.from_file
    ]
    return replace(recipe.changed(weights.source, **better), notes=()), notes


def _images(recipe: Recipe, weights: Weights) -> Source:
    """The validation split, numbered as the weights number their classes."""
    names = weights.meta.get("class_names")
    try:
        return build_val(recipe.dataset, names)
    except DataError:
        if names is None or "recipe" in weights.meta:
            raise
        images = build_val(recipe.dataset)  # the hub's names are for people: "tench, Tinca tinca" for n01440764
        images.notes.append("the folders are not named as the classes of the weights: taken in sorted order instead")
        return images


def _rows(recipe: Recipe, weights: Weights, fold: Fold) -> list[tuple[str, str]]:
    """The rows of the table that say what was measured."""
    form = "" if fold == "none" else f", reparameterized ({fold})"
    form += ", simulated int8" if recipe.model.quantize == "int8_qat" else ""
    return [("weights", weights.source), ("model", recipe.model.model + form)]
