"""`vitcli validate`: the accuracy of a checkpoint or of an exported network, counted image by image."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vitcli import catalog
from vitcli.data.class_names import without_names
from vitcli.data.crops import Crops
from vitcli.data.datasets import build_splits
from vitcli.data.source import Source
from vitcli.deploy.artifact import RECIPE, Artifact, fixed_by_export, is_artifact, open_artifact
from vitcli.deploy.bridges import ExportedNetwork, seen_by
from vitcli.deploy.predictions import check_writable
from vitcli.distributed import joined, num_launched
from vitcli.engine.failures import memory_in_words
from vitcli.engine.opened_data import found_on_main
from vitcli.engine.precision import build_autocast
from vitcli.engine.preflight import check_device, check_launch
from vitcli.engine.run_dir import write_result
from vitcli.errors import UsageError
from vitcli.evaluators.evaluator import SINGLE_CROP, Evaluator, Setting, UnreadableImages
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.reparam import reparameterize
from vitcli.log import Reporter
from vitcli.networks.build import float_layers
from vitcli.networks.classes import NamedBy, check_num_classes, numbered
from vitcli.networks.opened import no_classifier, open_network
from vitcli.networks.precedence import DATA, overlaid
from vitcli.recipe.check import COMMAND_LINE
from vitcli.recipe.flat_yaml import read_flat_yaml
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task

Fold = Literal["none", "standard", "full"]

#: the keys that apply to an exported network: which images, and how they are read
OF_AN_ARTIFACT = (
    *DATA, "class_names", "class_order", "dataset_download", "num_parallel_workers", "max_image_pixels", "device",
    "evaluate",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is measured, and what the table and the JSON file say about it."""

    recipe: Recipe
    network: nn.Module  #: in eval mode, on the device
    source: str  #: where it was found
    class_names: list[str]  #: of its outputs; empty: it returns features
    named_by: NamedBy
    rows: list[tuple[str, str]]
    facts: dict[str, Any]
    notes: list[str]
    findings: Mapping[str, Any]  #: of the evaluation in its training, see `Evaluator.findings`


def validate(
    recipe: Recipe,
    *,
    fold: Fold = "none",
    crops: Crops | None = None,
    json_file: Path | None = None,
) -> dict[str, float]:
    """Evaluate `recipe.model.ckpt_path`, weights of any kind or an exported folder, on the validation split.

    Args:
        recipe: what the user says; `networks/precedence.py` decides between it and what the weights say.
        fold: evaluate the network in the form its weights have, or reparameterized ("standard", "full").
        crops: classify each image by the average of many crops; the result by the single crop is reported too.
        json_file: also write the result to this path.

    Returns:
        The numbers by name: for classification top1 and top5 in percent, nll, num_images, correct1, correct5; for
        multilabel mAP, f1_micro, f1_macro in percent, num_images, and those of each class.

    Raises:
        VitcliError: see `errors.py`.
    """
    if recipe.model.ckpt_path is None:
        raise UsageError("nothing to validate", help="give --ckpt_path: a run, a checkpoint, weights, or an export")
    check_writable(json_file)
    exported = is_artifact(recipe.model.ckpt_path)
    if exported:
        _check_artifact_options(recipe, fold=fold, crops=crops)
    launch_notes = check_launch(recipe)
    with joined("cpu" if exported else recipe.system.device, num_launched() > 1) as world:
        reporter = Reporter(enabled=world.is_main)
        reporter.notes(recipe.notes, launch_notes)
        subject = _artifact(recipe) if exported else _checkpoint(recipe, fold, world.device)
        reporter.notes(subject.notes)
        kinds = _evaluators(subject, crops)
        needs_train = any(kind.needs_train for kind in kinds.values())
        train, val = found_on_main(partial(_images, subject, needs_train=needs_train))
        reporter.notes(*(source.notes for source in (train, val) if source))
        if subject.named_by == "number" and val:
            check_num_classes(recipe, val.class_names or [])
        autocast = build_autocast(subject.recipe, world.device)
        setting = Setting(subject.recipe, val, world, autocast, train=train, crops=crops, findings=subject.findings)
        numbers, rows = {}, subject.rows
        with memory_in_words("lower --val_batch_size"), _all_unreadable_listed():
            for evaluator in [kind(setting) for kind in kinds.values()]:
                found = evaluator(subject.network)
                numbers |= found
                rows += evaluator.rows(found)
                if warning := evaluator.warning(found):
                    rows.append(("warning", warning))
        reporter.table("validation", rows)
        if json_file and world.is_main:
            write_result(json_file, numbers | subject.facts | (_crop_facts(crops, numbers) if crops else {}))
        return numbers


@contextmanager
def _all_unreadable_listed() -> Iterator[None]:
    """No file has a list of them, so the message has all."""
    try:
        yield
    except UnreadableImages as error:
        error.message = error.listing()
        raise


def _evaluators(subject: Subject, crops: Crops | None) -> dict[str, type[Evaluator]]:
    """What the user asks for, else what the task names; an error if the network or the crops do not suit them."""
    task: type[Task] = catalog.load("tasks", subject.recipe.learning.task)
    names = subject.recipe.evaluation.evaluate or task.evaluators
    if not names:
        message = f"`task: {subject.recipe.learning.task}` names no evaluator of the network alone"
        raise UsageError(message, help="choose evaluators with --evaluate")
    kinds: dict[str, type[Evaluator]] = {name: catalog.load("evaluators", name) for name in names}
    if not subject.class_names and any(kind.needs_classifier for kind in kinds.values()):
        raise no_classifier(subject.source)
    if crops and not any(kind.takes_crops for kind in kinds.values()):
        help = f"remove it, or add --evaluate {task.evaluators[0] if task.evaluators else 'top1'}"
        raise UsageError(f"--eval_crops has no effect on {', '.join(names)}", help=help)
    return kinds


def _images(subject: Subject, *, needs_train: bool) -> tuple[Source | None, Source | None]:
    """Training images, if they are needed, and validation images, with the class indices of the network's outputs."""
    section = subject.recipe.dataset
    if not subject.class_names:  # the network knows no classes; the evaluators decide whether the data must have labels
        splits = build_splits(section, needs_labels=False)
        return splits.train, splits.val
    task: type[Task] = catalog.load("tasks", subject.recipe.learning.task)
    named = partial(numbered, section, subject.class_names, subject.named_by, multi_label=task.multi_label)
    return named("train") if needs_train else None, named("val")


def _crop_facts(crops: Crops, numbers: dict[str, float]) -> dict[str, Any]:
    return {
        "eval_crops": crops.protocol,
        "crop_scales": list(crops.used_scales),
        "crop_average": crops.average,
        "num_crops": crops.num_crops,
        "single_crop": {
            name.removeprefix(SINGLE_CROP): value for name, value in numbers.items() if name.startswith(SINGLE_CROP)
        },
    }


def _checkpoint(recipe: Recipe, fold: Fold, device: torch.device) -> Subject:
    """The network of a run, a checkpoint or a file of weights."""
    assert recipe.model.ckpt_path is not None
    opened = open_network(recipe.model.ckpt_path, recipe=recipe)
    recipe, network, source = opened.recipe, opened.model, opened.weights.source
    form = "" if fold == "none" else f", reparameterized ({fold})"
    rows = [("weights", source), ("model", recipe.model.model + form)]
    if fold != "none":
        network = reparameterize(network, fold=fold)
    if recipe.model.quantize == "int8_qat":
        said = simulate_int8(network, keep_float=float_layers(network))
        rows.append(("int8", said.removeprefix("int8").strip()))
    return Subject(
        recipe,
        network.to(device).eval(),
        source,
        opened.class_names,
        opened.named_by,
        rows=rows,
        facts={"ckpt_path": source, "fold": fold, "quantize": recipe.model.quantize},
        notes=[*opened.notes, *check_device(recipe, device)],
        findings=opened.findings,
    )


def _artifact(recipe: Recipe) -> Subject:
    """An exported network in its own runtime; the recipe it holds supplies the data unless the user gives another."""
    artifact = open_artifact(str(recipe.model.ckpt_path), class_names=recipe.dataset.class_names)
    device = None if recipe.system.device == "auto" else recipe.system.device
    known = {} if recipe.from_file else _data_of(artifact)
    recipe, _ = overlaid(recipe, known, str(artifact.folder), over_file=True)
    has_names = recipe.dataset.class_names or artifact.class_names != without_names(len(artifact.class_names))
    return Subject(
        seen_by(artifact, recipe),
        ExportedNetwork(artifact, device=device).eval(),
        str(artifact.folder),
        artifact.class_names,
        "name" if has_names else "number",
        rows=[("artifact", str(artifact.folder)), ("format", f"{artifact.format}, {artifact.precision}")],
        facts={"artifact": str(artifact.folder), "format": artifact.format, "precision": artifact.precision},
        notes=[],
        findings={} if artifact.thresholds is None else {"thresholds": artifact.thresholds.tolist()},
    )


def _data_of(artifact: Artifact) -> dict[str, Any]:
    """The keys about data in the recipe of the artifact, if it has one; the rest may need plugins that are not here."""
    file = artifact.folder / RECIPE
    entries = read_flat_yaml(file)[0] if file.is_file() else []
    return {entry.key: entry.value for entry in entries if entry.key in DATA}


def _check_artifact_options(recipe: Recipe, *, fold: Fold, crops: Crops | None) -> None:
    """Refuse what an export has fixed."""
    if num_launched() > 1:
        raise UsageError("an exported network is validated by one process", help="start without torchrun")
    typed = [name for name, origin in recipe.origins.items() if origin == COMMAND_LINE and name != "ckpt_path"]
    options = {"fold": fold != "none", "eval_crops": crops is not None}
    others = [name for name in typed if name not in OF_AN_ARTIFACT] + [name for name, set_ in options.items() if set_]
    if others:
        raise fixed_by_export(others, help=f"keys that apply: {', '.join(OF_AN_ARTIFACT)}")
