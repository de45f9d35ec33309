"""From images to class probabilities by an exported network; numpy and Pillow only, without torch.

classify = Classifier(open_artifact("exported"))
probabilities = classify([open_image("photo.jpg")])[0]
print(classify.class_names[probabilities.argmax()])
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from vitcli.data.bands import Picture
from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import Artifact
from vitcli.deploy.formats import Session, Setting, open_format
from vitcli.errors import DataError, UsageError, VitcliError
from vitcli.recipe.schema import Augmentation

#: a line of a runtime's message that contains only a position in its source
_SOURCE_LINE = re.compile(r"\.cpp:\d+:?$")


class ImageClassifier(ABC):
    """Gives each image a probability for each class; subclasses implement `_probabilities`.

    thresholds: (num_classes,) the probability from which on an image has a class; None: each image has exactly one.
    """

    def __init__(
        self, class_names: list[str], preprocessing: Augmentation, in_channels: int, thresholds: np.ndarray | None
    ) -> None:
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.thresholds = thresholds
        self.transform = build_eval_transform(preprocessing, in_channels=in_channels)

    def pixels(self, image: Picture) -> np.ndarray:
        """The pixels of `image` that the network gets: (H, W, C) uint8. May be called from several threads at once."""
        pixels = np.asarray(self.transform(image))
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def __call__(self, images: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Probabilities (B, num_classes) float32 for images of any size, or for an array (B, H, W, C) of `pixels`."""
        pixels = images if isinstance(images, np.ndarray) else np.stack([self.pixels(image) for image in images])
        probabilities = self._probabilities(pixels)
        expected = len(pixels), len(self.class_names)
        if probabilities.shape != expected or not np.isfinite(probabilities).all():
            what = "numbers that are not finite" if probabilities.shape == expected else f"{probabilities.shape}"
            message = f"the network returns {what} for {expected[0]} images and {expected[1]} classes"
            raise DataError(message, help="export it again")
        return probabilities

    def labels(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """All classes for the probabilities (num_classes,) of an image, each with its own, most probable first.

        Of any number of classes per image: those from their threshold on.
        """
        order = np.argsort(-probabilities, kind="stable")
        if self.thresholds is not None:
            order = order[probabilities[order] >= self.thresholds[order]]
        return [(self.class_names[index], float(probabilities[index])) for index in order]

    def heat_maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """How much each of the `pixels` (B, H, W, C) speaks for a class (B,): (B, H, W) float32, 0..1.

        Raises:
            UsageError: there are no gradients, or the network has no layer that gives a map.
        """
        raise UsageError(
            "an exported network has no gradients, from which heat maps are made",
            help="give the run or the checkpoint that it was exported from",
        )

    def try_heat_maps(self) -> None:
        """UsageError, before any image is read, if `heat_maps` cannot work."""
        pixels = np.zeros((1, *self.transform.size, self.transform.format.channels), dtype=np.uint8)
        self.heat_maps(pixels, np.zeros(1, dtype=np.int64))

    @abstractmethod
    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 -> (B, num_classes) float32."""


class Classifier(ImageClassifier):
    """Classifies by an artifact, in its format's own runtime.

    Args:
        threads: of the runtime; None: all cores.
        device: "cpu", "cuda", or one of OpenVINO's such as "GPU"; None: the one it was exported for.

    Raises:
        UsageError: the runtime of this format is not installed, or refuses the device.
    """

    def __init__(self, artifact: Artifact, *, threads: int | None = None, device: str | None = None) -> None:
        super().__init__(artifact.class_names, artifact.preprocessing, artifact.in_channels, artifact.thresholds)
        self._session = open_session(artifact, threads=threads, device=device)
        self._takes_pixels = artifact.takes_pixels

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        if self._takes_pixels:
            outputs = self._session(pixels)
        else:
            logits = self._session(normalize(pixels, self.preprocessing))
            outputs = softmax(logits) if self.thresholds is None else sigmoid(logits)
        return outputs.astype(np.float32, copy=False)


def open_session(artifact: Artifact, *, threads: int | None = None, device: str | None = None) -> Session:
    """The network of `artifact` as a function of any number of inputs, even if the file has a fixed batch size.

    Errors of its runtime become UsageErrors, now and when the function is called.
    """
    chosen: str = device or artifact.facts["device"]
    setting = Setting(artifact.precision, threads=threads, device=chosen)
    runtime = open_format(artifact.format)
    with _in_words(artifact, chosen):
        session = runtime.open_session(artifact.file, setting)

    def run(images: np.ndarray) -> np.ndarray:
        step = artifact.batch or len(images)
        with _in_words(artifact, chosen):
            if len(images) == step:
                return session(images)
            filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % step, axis=0)])
            outputs = [session(filled[start : start + step]) for start in range(0, len(filled), step)]
        return np.concatenate(outputs)[: len(images)]

    return run


@contextmanager
def _in_words(artifact: Artifact, device: str) -> Iterator[None]:
    try:
        yield
    except VitcliError:
        raise
    except Exception as error:  # each runtime has its own types
        lines = [line for line in str(error).splitlines() if line.strip() and not _SOURCE_LINE.search(line)]
        message = f"{artifact.format} cannot run {artifact.file} on {device}: {[*lines, type(error).__name__][0]}"
        raise UsageError(message, help="give another --device, or export again for this one") from None


def normalize(pixels: np.ndarray, preprocessing: Augmentation) -> np.ndarray:
    """(B, H, W, C) uint8 -> (B, C, H, W) float32, (x / 255 - mean) / std for each channel."""
    mean, std = (255 * np.array(values, dtype=np.float32) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels - mean) / std).transpose(0, 3, 1, 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float32."""
    powers = np.exp(logits.astype(np.float32) - logits.max(axis=-1, keepdims=True).astype(np.float32))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float32."""
    return (0.5 + 0.5 * np.tanh(logits.astype(np.float64) / 2)).astype(np.float32)  # 1 / (1 + exp(-x)) would overflow
