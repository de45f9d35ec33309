"""Opens a trained network, from a run, a checkpoint, a file of weights or an address, with what travels with it.

open_weights   the tensors, as they are stored
open_model     a classifier
open_network   whatever the weights hold: a classifier, or a network that returns features
open_features  always the features, without the classifier
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vitcli import catalog
from vitcli.data.class_names import named_outputs, without_names
from vitcli.errors import DataError, WeightsError
from vitcli.evaluators.multilabel import thresholds_in
from vitcli.layers.reparam import reparameterize
from vitcli.models.shapes import shapes_only
from vitcli.models.vit_keys import MASK_TOKEN
from vitcli.networks.build import build_network
from vitcli.networks.calibration import stored_temperature
from vitcli.networks.classes import NamedBy
from vitcli.networks.precedence import settled
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.tasks.task import Task
from vitcli.weights.address import is_remote
from vitcli.weights.checkpoint_folders import best_checkpoint, newest_valid
from vitcli.weights.fit import converted, fold_of
from vitcli.weights.hub_folder import is_hub_folder
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights, read_weights


@dataclass(frozen=True)
class Opened:
    """A trained network, ready for use."""

    model: nn.Module  #: in eval mode, in the form its weights have
    recipe: Recipe  #: how it is built and given its images; of a run, `dataset` is what it was trained on
    class_names: list[str]  #: one for each output; empty: the network returns features (B, D)
    weights: Weights
    notes: list[str]
    #: its logits are to be divided by it where they become probabilities, see `networks/calibration.py`
    temperature: float = 1.0

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of classes: the sigmoid of each output is a probability of its own."""
        task: type[Task] = catalog.load("tasks", self.recipe.learning.task)
        return task.multi_label

    @property
    def thresholds(self) -> np.ndarray | None:
        """(num_classes,) the probability from which on an image has a class; None: each image has exactly one."""
        return thresholds_in(self.findings, len(self.class_names)) if self.multi_label else None

    @property
    def recipe_of_run(self) -> dict[str, Any]:
        """Key -> value, of the training that the weights come from; empty: they do not tell."""
        return self.weights.meta.get("recipe", {})

    @property
    def findings(self) -> dict[str, Any]:
        """What the evaluation in training found for the use of the network, see `Evaluator.findings`."""
        return self.weights.meta.get("findings", {})

    @property
    def named_by(self) -> NamedBy:
        """Whether the outputs have names."""
        return "name" if self.recipe.dataset.class_names or self.weights.class_names else "number"


def open_weights(source: str | Path, *, use_ema: bool | None = None) -> Weights:
    """The weights in a run (its best checkpoint, else its newest valid one), or in anything `read_weights` accepts.

    use_ema: the moving average or the raw weights; None: the average if there is one.
    """
    path = Path(source)
    if is_remote(source) or not path.is_dir() or is_hub_folder(path):
        return read_weights(source, use_ema=use_ema)
    return read_weights(_checkpoint_of(path), use_ema=use_ema)


def _checkpoint_of(folder: Path) -> Path:
    if (folder / "MANIFEST.json").exists() or (folder / "model.safetensors").exists():
        return folder
    if best := best_checkpoint(folder):
        return best
    newest, damaged = newest_valid(folder)
    if newest is None:
        found = "; ".join(damaged) or "it has no checkpoint"
        help = "give a run, a checkpoint folder, or a weights file"
        raise DataError(f"{folder} is not a run with a checkpoint: {found}", help=help)
    return newest


def open_model(source: str | Path, *, recipe: Recipe | None = None) -> Opened:
    """As `open_network`, and a WeightsError if it is no classifier: images (B, C, H, W) -> logits (B, num_classes)."""
    opened = open_network(source, recipe=recipe)
    if not opened.class_names:
        raise no_classifier(opened.weights.source)
    return opened


def no_classifier(source: str) -> WeightsError:
    """What to raise where a network that returns features was given and a classifier is needed."""
    return WeightsError(
        f"{source} has no classifier: the network returns features",
        help="fine-tune it first: `vitcli train … --ckpt_path RUN`",
    )


def open_network(source: str | Path, *, recipe: Recipe | None = None, calibrated: bool = True) -> Opened:
    """The network that `source` names, with all of its weights.

    Args:
        source: as `--ckpt_path`: a run, a checkpoint, a file of weights of any project, or an address of one.
        recipe: what the user says of the network and its images; `precedence.py` decides which value is used.
        calibrated: with the temperature that is stored for the weights, if there is one; otherwise with 1.

    Raises:
        DataError: there is nothing, or it or its temperature is damaged. WeightsError: it fits no model of the
            registry, or lacks an average.
    """
    recipe, weights, notes = _opened(source, recipe)
    names = weights.class_names
    num_classes = len(names) or _num_outputs(recipe, weights)
    if num_classes and recipe.dataset.class_names:
        names = named_outputs(recipe.dataset.class_names, num_classes)
    model, loading = _load_whole(recipe, num_classes, weights)
    if num_classes and not names:
        names = without_names(num_classes)
        notes = [*notes, "the weights do not name their classes: the classes are numbered"]
    temperature = stored_temperature(weights) if names and calibrated else 1.0
    if temperature != 1:
        notes = [*notes, f"the probabilities are calibrated: the logits are divided by {temperature:.4g}"]
    return Opened(model.eval(), recipe, names, weights, [*notes, *loading], temperature)


def open_features(source: str | Path, *, recipe: Recipe | None = None) -> Opened:
    """As `open_network`, but without the classifier: images (B, C, H, W) -> features (B, D)."""
    recipe, weights, notes = _opened(source, recipe)
    model, loading = _load_whole(recipe, 0, weights)
    return Opened(model.eval(), recipe, [], weights, [*notes, *loading])


def _opened(source: str | Path, recipe: Recipe | None) -> tuple[Recipe, Weights, list[str]]:
    """The weights in `source`, how their network is built, and notes."""
    recipe = recipe or load_recipe()
    weights = open_weights(source, use_ema=recipe.model.use_ema)
    settled_recipe, notes = settled(recipe, weights)
    return settled_recipe, weights, notes


def _load_whole(recipe: Recipe, num_classes: int, weights: Weights) -> tuple[nn.Module, list[str]]:
    """The recipe's network with all of the weights, and notes; with 0 classes, the classifier's are not loaded."""
    model = build_network(recipe, num_classes)
    if fold := fold_of(weights.tensors):
        model = reparameterize(model, fold=fold)
    report = load_weights(model, weights, pos_resample=recipe.model.pos_resample)
    resized = [name for name in report.resized if name != "pos_embed"]
    unexpected = [name for name in report.unexpected if num_classes and name != MASK_TOKEN]
    if report.missing or unexpected or resized:
        names = ", ".join(list(dict.fromkeys([*report.missing, *unexpected, *resized]))[:3])
        message = f"{weights.source} does not fit {recipe.model.model} with {num_classes} classes: {names}"
        raise WeightsError(message, help="; ".join(report.notes) or "use the data that the model was trained for")
    return model, report.notes


def _num_outputs(recipe: Recipe, weights: Weights) -> int:
    """How many classes the classifier in `weights` has; 0: there is none."""
    with shapes_only():
        model: Any = build_network(recipe, 2)
    name = getattr(model, "classifiers", ("",))[0]
    tensors = converted(model, weights.tensors)
    head = tensors.get("fine_tune.weight", tensors.get(f"{name}.weight"))
    return 0 if head is None else len(head)
