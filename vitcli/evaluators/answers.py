"""The answer to each image of a split, gathered over all ranks: what a network gets wrong, class by class.

collect = Collector(images, world)
numbers = Top1(setting)(network, answers=collect)
answers = collect.answers()  # on every rank
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vitcli.data.batch import Batch
from vitcli.data.class_names import valid_text
from vitcli.data.source import Source
from vitcli.distributed import World, all_rows, any_rank
from vitcli.errors import DivergedError
from vitcli.evaluators import multilabel
from vitcli.evaluators.statistics import wilson

Interval = tuple[float, float]  #: 95 %, in 0..1


@dataclass(frozen=True)
class ClassResult:
    """How well one class is found; shares are in 0..1, with Wilson's 95 % interval; None: there is nothing to divide.

    The interval of F1 is that of the share hits / (hits + misses + false alarms) = F1 / (2 - F1), of which F1 is a
    monotone function.
    """

    name: str
    num_images: int  #: that have the class
    num_predicted: int  #: for which it was predicted
    num_hits: int  #: both

    @property
    def recall(self) -> float | None:
        return _share(self.num_hits, self.num_images)

    @property
    def recall95(self) -> Interval:
        return wilson(self.num_hits, self.num_images)

    @property
    def precision(self) -> float | None:
        return _share(self.num_hits, self.num_predicted)

    @property
    def precision95(self) -> Interval:
        return wilson(self.num_hits, self.num_predicted)

    @property
    def f1(self) -> float | None:
        return _share(2 * self.num_hits, self.num_images + self.num_predicted)

    @property
    def f1_95(self) -> Interval:
        low, high = wilson(self.num_hits, self.num_images + self.num_predicted - self.num_hits)
        return 2 * low / (1 + low), 2 * high / (1 + high)


@dataclass(frozen=True)
class GatheredAnswers:
    """What all answers have: the images in the order of the source, and the outputs of the network.

    Attributes:
        names: of each image, as the source names it: its path if it has one.
        class_names: one for each of the C outputs.
        targets: (N,) int64, or (N, C) bool.
        logits: (N, C) float32; of many crops those of the average.
    """

    names: list[str]
    class_names: list[str]
    targets: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageAnswers(GatheredAnswers):
    """Each image has one class, targets (N,)."""

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) int64, the most probable class; of equal ones the first."""
        return self.logits.argmax(1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) float32."""
        powers = np.exp(self.logits - self.logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) float32, the probability of the predicted class."""
        return self._of(self.predicted, self.probabilities)

    @cached_property
    def target_probability(self) -> np.ndarray:
        """(N,) float32, the probability of the true class."""
        return self._of(self.targets, self.probabilities)

    @cached_property
    def losses(self) -> np.ndarray:
        """(N,) float64, the negative log-likelihood of each image, in nats."""
        largest = self.logits.max(1).astype(np.float64)
        log_sum = largest + np.log(np.exp(self.logits - largest[:, None]).sum(1))
        return log_sum - self._of(self.targets, self.logits)

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.predicted == self.targets

    def top(self, count: int) -> np.ndarray:
        """(N, min(count, C)) int64: the most probable classes, most probable first; of equal ones the first."""
        return np.argsort(-self.logits, axis=1, kind="stable")[:, :count]

    def confusion(self) -> np.ndarray:
        """(C, C) int64: images of the true class (row) for which a class (column) was predicted."""
        size = len(self.class_names)
        return np.bincount(self.targets * size + self.predicted, minlength=size * size).reshape(size, size)

    def per_class(self) -> list[ClassResult]:
        """In the order of the class names."""
        size = len(self.class_names)
        counts = (self.targets, self.predicted, self.targets[self.correct])
        columns = [np.bincount(some, minlength=size).tolist() for some in counts]
        return [ClassResult(*row) for row in zip(self.class_names, *columns, strict=True)]

    def with_temperature(self, temperature: float) -> "ImageAnswers":
        """The same predictions with the probabilities softmax(logits / temperature)."""
        return ImageAnswers(self.names, self.class_names, self.targets, self.logits / np.float32(temperature))

    def select(self, indices: np.ndarray) -> "ImageAnswers":
        """Those of the images `indices`, in that order."""
        names = [self.names[index] for index in indices]
        return ImageAnswers(names, self.class_names, self.targets[indices], self.logits[indices])

    def _of(self, classes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(N, C) -> (N,): the value of one class of each image."""
        return np.take_along_axis(values, classes[:, None], axis=1)[:, 0]


@dataclass(frozen=True)
class MultiLabelAnswers(GatheredAnswers):
    """Each image has any number of classes, targets (N, C).

    thresholds: (C,) the probability from which on an image has a class.
    """

    thresholds: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) float64, of each class on its own."""
        return multilabel.probabilities(self.logits)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N, C) bool."""
        return self.probabilities >= self.thresholds

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool: whether exactly the true classes were predicted."""
        return (self.predicted == self.targets).all(1)

    def per_class(self) -> list[ClassResult]:
        """In the order of the class names."""
        counts = (self.targets, self.predicted, self.targets & self.predicted)
        columns = [some.sum(0).tolist() for some in counts]
        return [ClassResult(*row) for row in zip(self.class_names, *columns, strict=True)]


class Collector:
    """Keeps the answers of this rank; it is the `answers` of an evaluator over all of `images`.

    The logits stay on the device: num_images x num_classes x 4 bytes.
    """

    def __init__(self, images: Source, world: World) -> None:
        assert images.class_names is not None
        self.images, self.world, self.class_names = images, world, images.class_names
        self._indices: list[Tensor] = []
        self._logits: list[Tensor] = []

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        self._indices.append(batch.indices)
        self._logits.append(logits)

    def answers(self, *, thresholds: np.ndarray | None = None) -> ImageAnswers | MultiLabelAnswers:
        """Those of all ranks, each of which must call it; of multi-label data with the `thresholds` (C,).

        Raises:
            DivergedError: an output is NaN or infinite.
        """
        own = torch.cat([torch.empty(0, len(self.class_names), device=self.world.device), *self._logits])
        indices = torch.cat([torch.empty(0, dtype=torch.int64), *self._indices])
        dealt = torch.arange(self.world.rank, len(self.images), self.world.size)
        assert torch.equal(indices, dealt), "the answers are not in the order of the source"
        if any_rank(not own.isfinite().all().item()):
            raise DivergedError("the network's outputs are NaN or infinite", help="check its weights, or set amp: off")
        logits = all_rows(own, len(self.images)).cpu().numpy()
        names = [valid_text(self.images.name(index)) for index in range(len(self.images))]
        targets = self.images.targets
        assert targets is not None
        if targets.ndim == 1:
            return ImageAnswers(names, self.class_names, targets, logits)
        assert thresholds is not None
        return MultiLabelAnswers(names, self.class_names, targets, logits, thresholds)


def _share(part: int, total: int) -> float | None:
    return part / total if total else None
