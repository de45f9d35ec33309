"""What a report needs of a network: its answers to the validation images, and a look at some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcli import catalog
from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.fingerprint import fingerprint_of, strongest_common
from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.data.transforms import to_uint8_tensor
from vitcli.distributed import World
from vitcli.engine.failures import memory_in_words
from vitcli.engine.precision import build_autocast
from vitcli.engine.preflight import check_device
from vitcli.errors import DataError, UsageError, VitcliError
from vitcli.evaluators.answers import Collector, ImageAnswers, MultiLabelAnswers
from vitcli.evaluators.evaluator import Evaluator, Setting
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.log import Reporter
from vitcli.networks.classes import numbered
from vitcli.networks.heat_maps import heat_maps
from vitcli.networks.opened import Opened, open_network
from vitcli.recipe.load import Recipe
from vitcli.report.heat_pictures import over_picture
from vitcli.report.mistakes import Pictured
from vitcli.tasks.task import Task


@dataclass(frozen=True)
class Evaluation:
    """A network and what it answered."""

    recipe: Recipe  #: how images become its input
    network: nn.Module | None  #: in eval mode, on its device; None: it is not needed any more
    num_parameters: int
    source: str  #: where its weights were found
    class_names: list[str]  #: empty: it returns features
    images: Source | None = None  #: those of the validation split that it was given
    answers: ImageAnswers | MultiLabelAnswers | None = None
    numbers: dict[str, float] = field(default_factory=dict)  #: of the evaluator, by name
    temperature: float | None = None  #: that is stored with the weights
    notes: list[str] = field(default_factory=list)  #: what the reader of the report should know

    def look(self, indices: Sequence[int]) -> list[Pictured | None]:
        """The images as the network sees them, with heat maps of its answers where it can have them."""
        pixels = [self._pixels(index) for index in indices]
        readable = [one for one in pixels if one is not None]
        heat = iter(self._heat(torch.stack(readable)) if readable else ())
        return [one if one is None else Pictured(*over_picture(one.numpy(), next(heat))) for one in pixels]

    def _pixels(self, index: int) -> Tensor | None:
        """(C, H, W) uint8; None: the image cannot be read any more."""
        assert self.images is not None
        transform = build_eval_transform(self.recipe.augmentation, in_channels=self.recipe.model.in_channels)
        try:
            return to_uint8_tensor(transform(self.images.load(index)))
        except BadImage:
            return None

    def _heat(self, pixels: Tensor) -> list[np.ndarray | None]:
        """(N, C, H, W) uint8 -> N times (H, W) in 0..1; None where there is no map, or nothing in it."""
        nothing: list[np.ndarray | None] = [None] * len(pixels)
        if self.network is None:
            return nothing
        aug, device = self.recipe.augmentation, next(self.network.parameters(), torch.empty(0)).device
        normalize = Normalizer(aug.mean, aug.std, self.recipe.model.in_channels)
        try:
            maps = heat_maps(self.network, normalize(pixels.to(device))).cpu()
        except (UsageError, RuntimeError):  # an export has no gradients
            return nothing
        return [one.numpy() if one.any() else None for one in maps]  # the last map of a small image may be one pixel


def evaluated(
    run: Path,
    recipe: Recipe,
    world: World,
    reporter: Reporter,
    *,
    num_images: int | None = None,
    then: Mapping[str, Any] | None = None,
) -> Evaluation:
    """The best checkpoint of a run, evaluated on the validation images of its recipe.

    Args:
        then: the fingerprint of the validation images of the training; what differs now is noted.
        recipe: what the user says, such as the device or where the data is now.
        num_images: that are evaluated, evenly spread over the split; None: all.

    Raises:
        VitcliError: the run has no checkpoint that can be opened. Data that is gone is a note, not an error.
    """
    opened = open_network(run, recipe=recipe)
    network = opened.model.to(world.device).eval()
    if world.device.type == "cpu":
        use_cpu_kernels(network)
    notes = [*opened.notes, *check_device(opened.recipe, world.device)]
    found = Evaluation(
        opened.recipe,
        network,
        num_parameters(network),
        opened.weights.source,
        opened.class_names,
        temperature=None if opened.temperature == 1 else opened.temperature,
        notes=notes,
    )
    if not opened.class_names:
        return found
    try:
        return _with_answers(found, opened, world, reporter, num_images, then)
    except VitcliError as error:
        said = f"the validation images were not evaluated: {error.message.splitlines()[0]}"
        reporter.note(said)
        return replace(found, notes=[*notes, said])


def _with_answers(
    found: Evaluation,
    opened: Opened,
    world: World,
    reporter: Reporter,
    num_images: int | None,
    then: Mapping[str, Any] | None,
) -> Evaluation:
    recipe = opened.recipe
    task: type[Task] = catalog.load("tasks", recipe.learning.task)
    images = numbered(recipe.dataset, opened.class_names, opened.named_by, multi_label=task.multi_label)
    if images.targets is None:
        raise DataError("they have no labels")
    notes = [*found.notes, *images.notes, *filter(None, [change_since(images, then)])]
    if num_images is not None and num_images < len(images):
        notes.append(f"{num_images:,} of the {len(images):,} validation images were evaluated, evenly spread")
        images = images.subset(num_images)
    reporter.say(f"evaluating {len(images):,} images with {opened.weights.source}")
    setting = Setting(recipe, images, world, build_autocast(recipe, world.device), findings=opened.findings)
    evaluator: Evaluator = catalog.load("evaluators", _evaluator_of(task))(setting)
    collect = Collector(images, world)
    with memory_in_words("lower --val_batch_size"):
        numbers = evaluator(opened.model, answers=collect)
    answers = collect.answers(thresholds=opened.thresholds)
    return replace(found, images=images, answers=answers, numbers=numbers, notes=notes)


def _evaluator_of(task: type[Task]) -> str:
    """That of the task's evaluators which hands out logits."""
    for name in task.evaluators:
        if catalog.load("evaluators", name).needs_classifier:
            return name
    raise UsageError("its task names no evaluator of classes")


def num_parameters(network: nn.Module) -> int:
    """All that are trained or could be."""
    return sum(parameter.numel() for parameter in network.parameters())


def change_since(images: Source, then: Mapping[str, Any] | None) -> str | None:
    """A sentence if the images are not those of `then`, the fingerprint in data.json; contents are not read again."""
    if not then:
        return None
    now = fingerprint_of(images, "sizes")
    kind = strongest_common(dict(then), now)
    if kind is None or now[kind] == then[kind]:
        return None
    counts = f"{then.get('num_images', 0):,} then, {len(images):,} now"
    return f"the validation images are not those of the training ({counts})"
