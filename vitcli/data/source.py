"""What every data set looks like to the rest of the program, and the kind of set that is held in memory."""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from PIL import Image

from vitcli.data.bands import Picture
from vitcli.errors import DataError


class MissingSplit(DataError):
    """The data set has no such split."""


class Source:
    """Images that are numbered from 0, with labels or without.

    A subclass defines `_load`, `_name` and `_digests`. It numbers its own images as rows 0, 1, ...; choosing among them
    (`subset`, `select`) happens here. A source must be picklable: worker processes get a copy.

    Attributes:
        rows: (n,) int64, the row of each image.
        targets: (n,) int64, the index into `class_names` of each image; None without labels.
        class_names: None without labels.
        notes: what the user should be told once.
        groups: what images belong together, by row, if the source knows it: these stay in one part of a split.
    """

    groups: Sequence[str] | None = None

    def __init__(
        self,
        num_images: int,
        targets: np.ndarray | None = None,
        class_names: list[str] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        assert (targets is None) == (class_names is None)
        self.rows = np.arange(num_images)
        self.targets = None if targets is None else np.asarray(targets, dtype=np.int64)
        self.class_names = None if class_names is None else list(class_names)
        self.notes = notes or []

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Picture:
        """The image `index`, upright, as `open_image` gives it. Raises BadImage."""
        return self._load(int(self.rows[index]))

    def name(self, index: int) -> str:
        """What messages call the image `index`: its path if it has one. Unique within the set."""
        return self._name(int(self.rows[index]))

    def target(self, index: int) -> int | None:
        """The class of the image `index`; None without labels."""
        return None if self.targets is None else int(self.targets[index])

    def group(self, index: int) -> str:
        """What the image `index` belongs to; if that is not known, its name."""
        return self.name(index) if self.groups is None else self.groups[int(self.rows[index])]

    def fingerprint(self) -> dict[str, Any]:
        """What is compared on resume: number of images, count of each class, sha256 of what identifies the images."""
        return {"num_images": len(self), "class_counts": self.class_counts(), **self._digests()}

    def class_counts(self) -> dict[str, int]:
        """Class name -> number of images; empty without labels."""
        if self.targets is None or self.class_names is None:
            return {}
        counts = np.bincount(self.targets, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def relabel(self, class_names: list[str]) -> Self:
        """The same images with class indices into `class_names`, which must hold every class that has an image."""
        assert self.targets is not None
        assert self.class_names is not None
        new_index = {name: index for index, name in enumerate(class_names)}
        table = np.array([new_index.get(name, -1) for name in self.class_names], dtype=np.int64)
        other = copy.copy(self)
        other.targets, other.class_names, other.notes = table[self.targets], list(class_names), [*self.notes]
        assert len(other) == 0 or other.targets.min() >= 0
        return other

    def select(self, indices: np.ndarray) -> Self:
        """The images `indices`, in that order, with the same class names."""
        other = copy.copy(self)
        other.rows, other.notes = self.rows[indices], [*self.notes]
        other.targets = None if self.targets is None else self.targets[indices]
        return other

    def subset(self, num_samples: int) -> Self:
        """`num_samples` images, evenly spread over the set; all images if there are no more than that."""
        if num_samples >= len(self):
            return self
        return self.select(np.arange(num_samples, dtype=np.int64) * len(self) // num_samples)

    def _load(self, row: int) -> Picture:
        raise NotImplementedError

    def _name(self, row: int) -> str:
        raise NotImplementedError

    def _digests(self) -> dict[str, str]:
        """`sha256` of what identifies the images `rows`; `contents_sha256`, if given, ignores harmless changes."""
        raise NotImplementedError


class ArrayImages(Source):
    """Images in memory.

    Args:
        pixels: (n, H, W) gray or (n, H, W, 3) RGB, uint8.
        targets: (n,) integers; None without labels.
        class_names: None without labels.
        title: how the names of its images begin.
    """

    def __init__(
        self, pixels: np.ndarray, targets: np.ndarray | None, class_names: list[str] | None, title: str
    ) -> None:
        super().__init__(len(pixels), targets, class_names)
        assert pixels.dtype == np.uint8
        assert self.targets is None or len(pixels) == len(self.targets)
        self.pixels, self.title = pixels, title

    def _load(self, row: int) -> Image.Image:
        return Image.fromarray(self.pixels[row]).convert("RGB")

    def _name(self, row: int) -> str:
        return f"{self.title}[{row}]"

    def _digests(self) -> dict[str, str]:
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels[self.rows]).tobytes())
        digest.update(b"" if self.targets is None else self.targets.tobytes())
        return {"sha256": digest.hexdigest()}
