"""What a report shows of a network: its answers to the validation images, and a look at some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.fingerprint import fingerprint_of, other_labels, strongest_common
from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.data.transforms import to_uint8_tensor
from vitcli.errors import UsageError
from vitcli.evaluators.answers import ImageAnswers, MultiLabelAnswers
from vitcli.networks.heat_maps import heat_maps
from vitcli.recipe.load import Recipe
from vitcli.report.heat_pictures import over_picture
from vitcli.report.mistakes import Pictured


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A network and what it answered."""

    recipe: Recipe  #: how images become its input
    network: nn.Module | None  #: in eval mode, on its device; None: it is not needed any more
    source: str  #: where its weights were found
    class_names: list[str]  #: empty: it returns features
    images: Source | None = None  #: those of the validation split that it was given
    answers: ImageAnswers | MultiLabelAnswers | None = None
    numbers: dict[str, float] = field(default_factory=dict)  #: of the evaluator, by name
    temperature: float = 1.0  #: by which the logits of the answers were divided
    notes: list[str] = field(default_factory=list)  #: what the reader of the report should know

    @property
    def num_parameters(self) -> int:
        """All that are trained or could be; 0: it is exported, which hides them, or not there any more."""
        return sum(parameter.numel() for parameter in self.network.parameters()) if self.network else 0

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


def change_since(images: Source, then: Mapping[str, Any] | None) -> str | None:
    """A sentence if the images are not those of `then`, the fingerprint in data.json; contents are not read again."""
    if not then:
        return None
    now = fingerprint_of(images, "sizes")
    kind = strongest_common(dict(then), now)
    if kind is None or now[kind] == then[kind]:
        return "the validation images have other labels than in the training" if other_labels(dict(then), now) else None
    counts = f"{then.get('num_images', 0):,} then, {len(images):,} now"
    return f"the validation images are not those of the training ({counts})"
