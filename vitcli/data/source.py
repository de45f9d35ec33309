"""What every data set looks like to the rest of the program, and the kind of set that is held in memory."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from vitcli.data.bands import Picture
from vitcli.data.decode import lazy_image_in
from vitcli.data.jpeg import Jpeg
from vitcli.data.pixels import Pixels
from vitcli.errors import DataError


class MissingSplit(DataError):
    """The data set has no such split."""


class Source:
    """Images that are numbered from 0, with labels or without.

    A subclass defines `_load`, `_name` and `_digests`. It numbers its own images as rows 0, 1, ...; choosing among them
    (`subset`, `select`) happens here. A source must be picklable: worker processes get a copy.

    Attributes:
        rows: (n,) int64, the row of each image.
        targets: (n,) int64, the index into `class_names` of each image; of multi-label data (n, num_classes) bool,
            whether the image has the class; None without labels.
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
        self.targets = (
            None if targets is None else np.asarray(targets, dtype=np.int64 if targets.ndim == 1 else np.bool_)
        )
        self.class_names = None if class_names is None else list(class_names)
        self.notes = notes or []

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Picture:
        """The image `index`, upright, as `open_image` gives it. Raises BadImage."""
        image = self.open(index)
        return image.picture() if isinstance(image, Jpeg | Pixels) else image

    def open(self, index: int) -> Picture | Pixels | Jpeg:
        """The same image as it is quickest to crop: of a JPEG file only the header is read. Raises BadImage."""
        return self._load(int(self.rows[index]))

    def file(self, index: int) -> bytes | None:
        """The file of the image `index`, unchanged; None: the image is not a file. Raises BadImage."""
        return self._file(int(self.rows[index]))

    def check(self, index: int) -> None:
        """Raises BadImage if the stored bytes of the image `index` are known to have changed."""

    def name(self, index: int) -> str:
        """What messages call the image `index`: its path if it has one. Unique within the set."""
        return self._name(int(self.rows[index]))

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of classes."""
        return self.targets is not None and self.targets.ndim == 2

    def target(self, index: int) -> int | None:
        """The class of the image `index`; None without labels. Not for multi-label data."""
        assert not self.multi_label
        return None if self.targets is None else int(self.targets[index])

    def labels(self, index: int) -> list[str]:
        """The names of all classes of the image `index`."""
        if self.targets is None or self.class_names is None:
            return []
        classes = np.flatnonzero(self.targets[index]) if self.multi_label else [self.targets[index]]
        return [self.class_names[label] for label in classes]

    def label_place(self, index: int) -> str:
        """Where the label of the image `index` is written, for messages."""
        return self.name(index)

    def group(self, index: int) -> str:
        """What the image `index` belongs to; if that is not known, its name."""
        return self.name(index) if self.groups is None else self.groups[int(self.rows[index])]

    def fingerprint(self) -> dict[str, Any]:
        """What is compared on resume: number of images, count of each class, sha256 of what identifies the images."""
        digests = self._digests()
        if self.targets is not None and self.multi_label:  # two tables may give the same images other labels
            labels = np.packbits(self.targets).tobytes()
            digests = {name: hashlib.sha256(digest.encode() + labels).hexdigest() for name, digest in digests.items()}
        return {"num_images": len(self), "class_counts": self.class_counts(), **digests}

    def stored_in(self) -> dict[str, Path]:
        """The files that hold the images, by a name that does not change when the data set is moved.

        Empty: there are none, or the fingerprint is over checksums of the images already.
        """
        return {}

    def class_counts(self) -> dict[str, int]:
        """Class name -> number of images; empty without labels."""
        if self.targets is None or self.class_names is None:
            return {}
        one_each = not self.multi_label
        counts = np.bincount(self.targets, minlength=len(self.class_names)) if one_each else self.targets.sum(0)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def strata(self) -> np.ndarray:
        """(n,) int64: the part of the set that each image is in where a share of each class is taken.

        This is its class; of several classes the rarest, so that no class is forgotten; num_classes if it has none.
        """
        if self.targets is None:
            return np.zeros(len(self), dtype=np.int64)
        if not self.multi_label:
            return self.targets
        num_classes = self.targets.shape[1]
        by_rarity = np.argsort(self.targets.sum(0), kind="stable")
        rarest = by_rarity[self.targets[:, by_rarity].argmax(1)]
        return np.where(self.targets.any(1), rarest, num_classes)

    def relabel(self, class_names: list[str]) -> Self:
        """The same images with class indices into `class_names`, which must hold every class that has an image."""
        assert self.targets is not None
        assert self.class_names is not None
        new_index = {name: index for index, name in enumerate(class_names)}
        table = np.array([new_index.get(name, -1) for name in self.class_names], dtype=np.int64)
        other = copy.copy(self)
        other.class_names, other.notes = list(class_names), [*self.notes]
        if self.multi_label:
            assert not self.targets[:, table < 0].any()
            other.targets = np.zeros((len(self), len(class_names)), dtype=np.bool_)
            other.targets[:, table[table >= 0]] = self.targets[:, table >= 0]
            return other
        other.targets = table[self.targets]
        assert len(other) == 0 or other.targets.min() >= 0
        return other

    def labeled(self, labels: Sequence[Sequence[str]]) -> Self:
        """The same images with the classes `labels` of each; multi-label data unless each image has exactly one."""
        assert len(labels) == len(self)
        other = copy.copy(self)
        other.notes, other.class_names = [*self.notes], sorted({name for of_one in labels for name in of_one})
        column = {name: number for number, name in enumerate(other.class_names)}
        targets = np.zeros((len(self), len(column)), dtype=np.bool_)
        rows = np.repeat(np.arange(len(self)), [len(of_one) for of_one in labels])
        targets[rows, [column[name] for of_one in labels for name in of_one]] = True
        other.targets = targets.argmax(1) if (targets.sum(1) == 1).all() else targets
        return other

    def with_one_label_each(self) -> Self:
        """Single-label data as multi-label data."""
        assert self.targets is not None
        assert self.class_names is not None
        other = copy.copy(self)
        other.notes, other.targets = [*self.notes], np.eye(len(self.class_names), dtype=np.bool_)[self.targets]
        return other

    def without_labels(self) -> Self:
        """The same images without labels."""
        other = copy.copy(self)
        other.notes, other.targets, other.class_names = [*self.notes], None, None
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

    def _load(self, row: int) -> Picture | Pixels | Jpeg:
        raise NotImplementedError

    def _file(self, row: int) -> bytes | None:
        return None

    def _name(self, row: int) -> str:
        raise NotImplementedError

    def _digests(self) -> dict[str, str]:
        """`sha256` of what identifies the images `rows`; `contents_sha256`, if given, ignores harmless changes."""
        raise NotImplementedError


class EncodedImages(Source):
    """Images that are files inside something else: an archive, a table, a packed file.

    A subclass sets `max_image_pixels`, and defines `_bytes`, `_name` and `_digests`.
    """

    max_image_pixels: int

    def _load(self, row: int) -> Picture | Pixels | Jpeg:
        return lazy_image_in(self._bytes(row), self._name(row), max_image_pixels=self.max_image_pixels)

    def _file(self, row: int) -> bytes | None:
        return self._bytes(row)

    def _bytes(self, row: int) -> bytes:
        """The whole file of an image. May raise BadImage."""
        raise NotImplementedError


class ArrayImages(Source):
    """Images in memory.

    Args:
        pixels: (n, H, W) gray or (n, H, W, 3) RGB, uint8.
        targets: (n,) integers, or (n, num_classes) bool for multi-label data; None without labels.
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

    def _load(self, row: int) -> Pixels:
        values = self.pixels[row]
        return Pixels(values if values.ndim == 3 else values[:, :, None])

    def _name(self, row: int) -> str:
        return f"{self.title}[{row}]"

    def _digests(self) -> dict[str, str]:
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels[self.rows]).tobytes())
        digest.update(b"" if self.targets is None else self.targets.tobytes())
        return {"sha256": digest.hexdigest()}
