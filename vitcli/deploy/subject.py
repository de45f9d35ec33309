"""What is measured: a trained network or an exported one, opened for an evaluation with the images that it is for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from vitcli.data.class_names import without_names
from vitcli.deploy.artifact import RECIPE, Artifact, fixed_by_export, is_artifact, open_artifact
from vitcli.deploy.bridges import ExportedNetwork, seen_by
from vitcli.distributed import num_launched
from vitcli.engine.preflight import check_device
from vitcli.errors import UsageError
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.reparam import reparameterize
from vitcli.networks.build import float_layers
from vitcli.networks.calibration import calibrate
from vitcli.networks.classes import NamedBy
from vitcli.networks.opened import Opened, open_network
from vitcli.networks.precedence import DATA, overlaid
from vitcli.recipe.check import COMMAND_LINE
from vitcli.recipe.flat_yaml import read_flat_yaml
from vitcli.recipe.load import Recipe
from vitcli.terminal import phase
from vitcli.weights.checkpoint_folders import has_both

Fold = Literal["none", "standard", "full"]
#: whether logits are divided by the temperature that is stored with the weights
Temperature = Literal["stored", "none"]

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
    opened: Opened | None = None  #: None: it is exported

    @property
    def temperature(self) -> float:
        """By which it divides its logits; an export does not tell."""
        return self.opened.temperature if self.opened else 1.0

    @property
    def is_average(self) -> bool:
        """Whether its weights are an average, and the raw ones are next to it."""
        return self.opened is not None and has_both(self.opened.weights.source)


def open_subject(recipe: Recipe, fold: Fold, device: torch.device, temperature: Temperature = "stored") -> Subject:
    """The network that `recipe.model.ckpt_path` names: of a run, a checkpoint or a file of weights; or exported."""
    assert recipe.model.ckpt_path is not None
    exported = is_artifact(recipe.model.ckpt_path)
    with phase("loading the network"):
        return _artifact(recipe) if exported else _checkpoint(recipe, fold, device, temperature)


def check_artifact_options(recipe: Recipe, others: Mapping[str, bool]) -> None:
    """UsageError for what an export has fixed: recipe keys, and options in `others` (name -> whether it is given)."""
    if num_launched() > 1:
        raise UsageError("an exported network is validated by one process", help="start without torchrun")
    typed = [name for name, origin in recipe.origins.items() if origin == COMMAND_LINE and name != "ckpt_path"]
    refused = [name for name in typed if name not in OF_AN_ARTIFACT] + [name for name, given in others.items() if given]
    if refused:
        raise fixed_by_export(refused, help=f"keys that apply: {', '.join(OF_AN_ARTIFACT)}")


def _checkpoint(recipe: Recipe, fold: Fold, device: torch.device, temperature: Temperature) -> Subject:
    assert recipe.model.ckpt_path is not None
    opened = open_network(recipe.model.ckpt_path, recipe=recipe, calibrated=temperature == "stored")
    recipe, network, source = opened.recipe, opened.model, opened.weights.source
    form = "" if fold == "none" else f", reparameterized ({fold})"
    rows = [("weights", source), ("model", recipe.model.model + form)]
    if fold != "none":
        network = reparameterize(network, fold=fold)
    if recipe.model.quantize == "int8_qat":
        said = simulate_int8(network, keep_float=float_layers(network))
        rows.append(("int8", said.removeprefix("int8").strip()))
    if device.type == "cpu":
        use_cpu_kernels(network)
    if opened.temperature != 1:
        rows.append(("temperature", f"{opened.temperature:.4f}, as stored; --temperature none leaves it out"))
    calibrate(network, opened.temperature)
    return Subject(
        recipe,
        network.to(device).eval(),
        source,
        opened.class_names,
        opened.named_by,
        rows=rows,
        facts={
            "ckpt_path": source,
            "fold": fold,
            "quantize": recipe.model.quantize,
            "temperature": opened.temperature,
        },
        notes=[*opened.notes, *check_device(recipe, device)],
        findings=opened.findings,
        opened=opened,
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
