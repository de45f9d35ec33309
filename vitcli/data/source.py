"""A set of labeled images: what every data set looks like to the loader, and the sets that live in memory."""

import copy
import hashlib
from typing import Any, Self

import numpy as np
from PIL import Image


class Source:
    """Images that are numbered from 0, each with one class.

    labels: (n,) int64, an index into `class_names` for every image. notes: what the user should be told once.
    """

    def __init__(self, labels: np.ndarray, class_names: list[str], notes: list[str] | None = None) -> None:
        self.targets = np.asarray(labels, dtype=np.int64)
        self.class_names = list(class_names)
        self.notes = notes or []

    def __len__(self) -> int:
        return len(self.targets)

    def load(self, index: int) -> Image.Image:
        """The image `index`, mode RGB, upright. Raises BadImage."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What to call the image `index` in a message: its path, where it has one."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """What is compared on resume: the number of images, the count of each class, sha256 of what identifies them."""
        return {"num_images": len(self), "class_counts": self.class_counts(), **self._digests()}

    def class_counts(self) -> dict[str, int]:
        """Class name -> number of images."""
        counts = np.bincount(self.targets, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def relabel(self, class_names: list[str]) -> Self:
        """The same images with class indices into `class_names`, which must hold every class that has an image."""
        new_index = {name: index for index, name in enumerate(class_names)}
        table = np.array([new_index.get(name, -1) for name in self.class_names], dtype=np.int64)
        other = copy.copy(self)
        other.targets, other.class_names = table[self.targets], list(class_names)
        assert len(other) == 0 or other.targets.min() >= 0
        return other

    def subset(self, num_samples: int) -> Self:
        """`num_samples` images, evenly spread over the set; all of it if it is not larger."""
        if num_samples >= len(self):
            return self
        rows = np.arange(num_samples, dtype=np.int64) * len(self) // num_samples
        other = copy.copy(self)
        other.targets = self.targets[rows]
        other._select(rows)
        return other

    def _select(self, rows: np.ndarray) -> None:
        """Keep only the images `rows`, in place; the labels were seen to."""
        raise NotImplementedError

    def _digests(self) -> dict[str, str]:
        raise NotImplementedError


class ArrayImages(Source):
    """Images in memory; pixels: (n, H, W) gray or (n, H, W, 3) RGB, uint8."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, class_names: list[str], title: str) -> None:
        super().__init__(labels, class_names)
        assert pixels.dtype == np.uint8
        assert len(pixels) == len(self.targets)
        self.pixels = pixels
        self.title = title
        self.rows = np.arange(len(pixels))

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[self.rows[index]]).convert("RGB")

    def name(self, index: int) -> str:
        return f"{self.title}[{self.rows[index]}]"

    def _select(self, rows: np.ndarray) -> None:
        self.rows = self.rows[rows]

    def _digests(self) -> dict[str, str]:
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels[self.rows]).tobytes())
        digest.update(self.targets.tobytes())
        return {"sha256": digest.hexdigest()}
