"""Which images are read, in which batches, and what happens to those that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints

from vitcli.recipe.schema.key import Finding, Name, Probability, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


#: NUMBER/PARTS
Fold = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,3}/[1-9]\d{0,3}$")]


#: sources that need no `data_dir`
WITHOUT_FOLDER = ("digits", "synthetic")


class Dataset(Section):
    dataset: Name = key("imagefolder", "Source of the images.", registry="sources")
    data_dir: Path | None = key(
        None,
        "Folder of the data, with one folder per class in train and val; or a table, an archive, a pattern of shards.",
        free=True,
    )
    train_split: Name = key("train", "Folder or name of the training split.")
    val_split: Name = key("val", "Folder or name of the validation split. A folder named validation is found too.")
    val_ratio: float | None = key(
        None,
        "Hold this share of the training images of each class out for validation, and use no other validation split.",
        gt=0,
        lt=1,
    )
    val_fold: Fold | None = key(None, "k-fold cross-validation: 2/5 holds the second of five parts out for validation.")
    split_seed: int = key(0, "Chooses the images of val_ratio or the parts of val_fold; independent of seed.", ge=0)
    group_by: str | None = key(
        None,
        "Regular expression for the names of images, such as 'patient\\d+': images with the same match (or the same "
        "first group of it) stay in one part of val_ratio or val_fold.",
    )
    val_labels: Path | None = key(
        None,
        "Text file with the class of each image of a validation folder without class folders, as for ImageNet: a line "
        "has the file and the name or number of its class.",
        free=True,
    )
    label_separator: Name | None = key(
        ";",
        "Tables: separates several labels of an image in one field. null: a field is one label, whatever is in it.",
    )
    class_names: Path | None = key(
        None,
        "Text file with one class per line; line n is output n. Default: the classes of the weights, else the class "
        "folders of the training split.",
    )
    class_order: Literal["sorted", "natural"] = key(
        "sorted", "Order of the class folders. sorted: by characters, 10 before 2; natural: 2 before 10."
    )
    dataset_download: bool = key(
        False, "Download the data set into data_dir (torchvision's data sets only).", free=True
    )
    num_samples: int | None = key(None, "Use only this many images of the training split.", ge=1)
    num_samples_per_class: int | None = key(
        None, "Use only this many training images of each class; the seed chooses them.", ge=1
    )
    num_samples_ratio: float | None = key(
        None,
        "Use only this share of the training images of each class, at least one; the seed chooses them.",
        gt=0,
        le=1,
    )
    data_fingerprint: Literal["names", "sizes", "content"] = key(
        "sizes",
        "What must be the same when a run is resumed: the names of the images, also the sizes of their files, or also "
        "the content of the files, which are read once.",
        free=True,
    )
    batch_size: int = key(128, "Images per process and micro-step.", ge=1, free=True)
    val_batch_size: int | None = key(None, "Images per process in evaluation. Default: batch_size.", ge=1, free=True)
    shuffle: bool = key(True, "Shuffle the training split in each epoch.")
    sampler: Literal["random", "balanced"] = key(
        "random",
        "random: each training image once per epoch. balanced: each class equally often; an epoch has as many images.",
    )
    drop_remainder: bool = key(True, "Drop the last, incomplete global batch of an epoch.")
    num_parallel_workers: int | None = key(
        None, "Decoding processes per training process. Default: depends on the number of cores.", ge=0, free=True
    )
    cache: Literal["none", "ram", "device"] = key(
        "none",
        "For small data sets. ram: decode all images once and keep them in memory. device: also keep and crop the "
        "training images on the GPU.",
        free=True,
    )
    check_data: Literal["off", "quick", "full"] | None = key(
        None,
        "Read images before the first step, and stop if one cannot be read. quick: 200 of each split; full: all. "
        "Default: off, and quick in a dry run.",
        free=True,
    )
    on_bad_image: Literal["fail", "skip"] = key(
        "fail", "Unreadable training images. fail: stop the run; skip: replace and count them."
    )
    max_bad_ratio: Probability = key(
        0.001, "Stop the run if a larger share of the images is unreadable (on_bad_image skip).", free=True
    )
    max_image_pixels: int = key(
        67_108_864,
        "An image with more pixels counts as unreadable. Each process that decodes needs 4 to 8 bytes per pixel.",
        ge=1,
        le=178_956_970,
        free=True,
    )

    @property
    def held_out(self) -> tuple[float, float] | None:
        """The part of [0, 1) that is for validation; None: the data has a validation split."""
        if self.val_fold is None:
            return None if self.val_ratio is None else (0, self.val_ratio)
        number, of = map(int, self.val_fold.split("/"))
        return (number - 1) / of, number / of

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if self.dataset in ("imagefolder", "imagenet"):
            yield from without_effect(recipe, "label_separator", why=f" with `dataset: {self.dataset}`")
        if self.held_out is None:
            yield from without_effect(recipe, "split_seed", "group_by", why=" without `val_ratio` or `val_fold`")
        else:
            yield from without_effect(recipe, "val_split", "val_labels", why=" with `val_ratio` or `val_fold`")
        if self.val_split == self.train_split and self.held_out is None:
            yield "`val_split` is the training split: the accuracy on it says nothing about other images"

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        if self.data_dir is not None and self.dataset in WITHOUT_FOLDER:
            message = f"`dataset: {self.dataset}` reads no folder: the images in `data_dir` would not be used"
            yield "data_dir", message, "add --dataset imagefolder, or remove data_dir"
        names = ("num_samples", "num_samples_per_class", "num_samples_ratio")
        given = [name for name in names if getattr(self, name) is not None]
        for name in given[1:]:
            yield name, f"`{name}` and `{given[0]}` both choose a part of the training split", "give one of them"
        if self.val_fold is not None and self.val_ratio is not None:
            yield "val_fold", "`val_fold` and `val_ratio` both choose the validation images", "give one of them"
        if self.val_fold is not None and (self.held_out == (0, 1) or max(self.held_out or (0,)) > 1):
            message = f"`val_fold: {self.val_fold}` is not one of its parts"
            yield "val_fold", message, "write NUMBER/PARTS, from 1/5 to 5/5 for five"
        if self.sampler == "balanced" and not self.shuffle:
            yield "sampler", "`sampler: balanced` shuffles, and `shuffle` is false", "remove one of the two"
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                yield "group_by", f"`group_by` is not a regular expression: {error}", None
