"""Images in the shards of a WebDataset, tar files on this machine, with random access to each.

    data_dir/train-000000.tar …  val-000000.tar …      or folders train/ and val/
    data_dir 'shards/train-{000000..000146}.tar'        a pattern, with val_ratio or val_fold

Files that are next to each other and have the same name up to the first dot after the last slash are one sample:
`a/1.jpg`, `a/1.cls`. Its class is a number or a name in .cls, a field of .json (see `table.LABEL`), or the line in
.txt. Numbers stand for the lines of the file `class_names`, if there is one. The shards are read once, header by
header, when the data set is opened. Then every image can be read alone: shuffling is exact, and no shard is bound to a
process.

Nothing but images, .cls, .json and .txt is read. Members that hold pickles are counted, as what else is left out.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitcli.data.class_names import class_name, classes_of
from vitcli.data.find_images import tally
from vitcli.data.image_formats import SUFFIXES, suffix_of
from vitcli.data.members import check_size
from vitcli.data.packed_names import PackedNames
from vitcli.data.random_access import ImagesInFiles, LargeFile, large_file, most_bytes
from vitcli.data.shards import find_shards
from vitcli.data.source import Source
from vitcli.data.sources.table import LABEL
from vitcli.data.tar_index import TarMember, tar_members
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset

_LABEL_SUFFIXES = (".cls", ".json", ".txt")
_PICKLES = (".pkl", ".pickle", ".pyd", ".pth", ".pt")
#: bytes of a file with a label
_MOST_LABEL = 1 << 20


class Sample(NamedTuple):
    """An image of a shard. `label`: None if it has none."""

    name: str
    shard: int
    offset: int
    size: int
    label: str | None


class ShardImages(ImagesInFiles):
    """Images in tar files.

    Args:
        targets: (n,) the class of each sample; None without labels.
    """

    def __init__(
        self,
        shards: list[LargeFile],
        samples: list[Sample],
        targets: np.ndarray | None,
        class_names: list[str] | None,
        max_image_pixels: int,
    ) -> None:
        super().__init__(len(samples), targets, class_names)
        self.shards, self.max_image_pixels = shards, max_image_pixels
        self.names = PackedNames(sample.name for sample in samples)
        self.places = np.array([sample[1:4] for sample in samples], dtype=np.int64)  # (n, 3) shard, offset, size

    def _read(self, row: int) -> bytes:
        shard, offset, size = self.places[row].tolist()
        check_size("it has", size, most_bytes(self.max_image_pixels))
        return self.shards[shard].read(offset, size)

    def _name(self, row: int) -> str:
        return self.names[row]

    def stored_in(self) -> dict[str, Path]:
        shards = [Path(self.shards[shard].path) for shard in np.unique(self.places[self.rows, 0]).tolist()]
        return {path.name: path for path in shards}

    def _digests(self) -> dict[str, str]:
        """`contents_sha256` is over names, sizes and classes; `sha256` also over the times of the shards."""
        contents, times = hashlib.sha256(), hashlib.sha256()
        targets = np.zeros(len(self), dtype=np.int64) if self.targets is None else self.targets
        for row, target in zip(self.rows.tolist(), targets.tolist(), strict=True):
            contents.update(os.fsencode(self.names[row]) + b"\0%d %d\0" % (self.places[row, 2], target))
        for shard in np.unique(self.places[self.rows, 0]).tolist():
            times.update(b"%d\0" % self.shards[shard].mtime_ns)
        return {
            "contents_sha256": contents.hexdigest(),
            "sha256": hashlib.sha256(contents.digest() + times.digest()).hexdigest(),
        }


def open_webdataset(section: Dataset, split: str, needs_labels: bool = True) -> Source:
    """The samples of a split.

    Raises:
        MissingSplit: no shard belongs to it.
        DataError: a shard is damaged or truncated, two samples have one name, or an image has no label.
        UsageError: no data_dir, or an address.
    """
    paths, notes = find_shards(section, split, (".tar",))
    shards, ignored = [large_file(path) for path in paths], Counter[str]()
    top = os.path.commonpath([path.parent for path in paths])
    samples = [
        sample
        for number, shard in enumerate(shards)
        for sample in _samples(shard, number, os.path.relpath(shard.path, top), ignored)
    ]
    if not samples:
        suffix = f" ({tally(ignored)} ignored)" if ignored else ""
        help = f"a sample is KEY.jpg and KEY.cls; images: {' '.join(sorted(SUFFIXES))}"
        raise DataError(f"no images in {len(shards)} shards in {top}{suffix}", help=help)
    _check_names(samples)
    num_without = sum(sample.label is None for sample in samples)
    if num_without and (needs_labels or num_without < len(samples)):
        name = next(sample.name for sample in samples if sample.label is None)
        message = f"{num_without:,} of {len(samples):,} images have no label: {name!r}"
        raise DataError(message, help="add KEY.cls, or a field `label` to KEY.json, next to KEY.jpg")
    labels = [sample.label or "" for sample in samples]
    targets, class_names = (None, None) if num_without else classes_of(labels, section.class_names)
    images = ShardImages(shards, samples, targets, class_names, section.max_image_pixels)
    images.notes = [*notes, f"{top}: ignored {tally(ignored)}"] if ignored else notes
    return images


def _samples(shard: LargeFile, number: int, title: str, ignored: Counter[str]) -> Iterator[Sample]:
    """The samples that have an image, in their order; `title` begins their names."""
    for key, members in groupby(tar_members(shard, ignored), key=lambda member: _key_and_suffix(member.name)[0]):
        images: list[TarMember] = []
        labels: dict[str, TarMember] = {}
        for member in members:
            suffix = _key_and_suffix(member.name)[1]
            if os.path.basename(member.name).startswith("."):
                ignored["hidden"] += 1
            elif suffix_of(f"KEY{suffix}") in SUFFIXES:
                images.append(member)
            elif suffix in _LABEL_SUFFIXES:
                labels[suffix] = member
            else:
                ignored["pickle" if suffix_of(f"KEY{suffix}") in _PICKLES else suffix or "without suffix"] += 1
        if not images and labels:
            ignored["sample without an image"] += 1
        if not images:
            continue
        images.sort(key=lambda member: _key_and_suffix(member.name)[1].count("."))  # before .mask.png comes .png
        ignored.update({"further image of a sample": len(images) - 1} if images[1:] else {})
        yield Sample(f"{title}/{images[0].name}", number, *images[0][1:], _label(shard, key, labels))


def _key_and_suffix(name: str) -> tuple[str, str]:
    """`a.b/1.seg.png` -> `a.b/1`, `.seg.png`; the suffix is in lower case."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _label(shard: LargeFile, key: str, labels: dict[str, TarMember]) -> str | None:
    """The class as text, by the first of .cls, .json with a label, and .txt; None: there is none."""
    for suffix in _LABEL_SUFFIXES:
        member = labels.get(suffix)
        if member is None:
            continue
        check_size(f"{shard}: {member.name!r} has", member.size, _MOST_LABEL)
        try:
            text = shard.read(member.offset, member.size).decode("utf-8").strip()
            found = _field(text) if suffix == ".json" else text
        except (ValueError, RecursionError):
            raise DataError(f"{shard}: {member.name!r} is not {suffix[1:]} in UTF-8") from None
        if found is not None:
            if not found or "\n" in found:
                message = f"{shard}: {member.name!r} has {'several lines' if found else 'no text'}, not a class"
                raise DataError(message, help="a class is a number or a name")
            return class_name(found)
    return None


def _field(text: str) -> str | None:
    """The class in a JSON object."""
    fields = json.loads(text)
    value = next((fields[name] for name in LABEL if name in fields), None) if isinstance(fields, dict) else None
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _check_names(samples: list[Sample]) -> None:
    counts = Counter(sample.name for sample in samples)
    if twice := [name for name, count in counts.items() if count > 1]:
        message = f"{len(twice):,} images have the name of another one in their shard: {twice[0]!r}"
        raise DataError(message, help="give each sample a key of its own")
