"""The images that an export is compared by and calibrated on: pixels out of a data folder, or none."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from vitcli.data.datasets import build_split, build_val
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.data.source import Source
from vitcli.errors import DataError
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Dataset

BATCH_SIZE = 50


class ExportImages:
    """Part of the validation split, with labels, and of the training split; both empty where there is no data.

    Args:
        recipe: of the network; preprocessing, and the names of the splits.
        trained_here: whether the folders must be called as the classes are; of weights from elsewhere they are taken in
            sorted order where they are called otherwise.
        num_images: so many of the validation split, evenly spread over the classes; 0: all.
        num_calibration: so many of the training split, or of the validation split where there is no other; 0: none.

    Raises:
        DataError: the folder is not laid out as expected, or has classes that the network was not trained for.
    """

    def __init__(
        self,
        recipe: Recipe,
        class_names: list[str],
        data_dir: Path | None,
        *,
        trained_here: bool,
        val_split: str | None,
        num_images: int,
        num_calibration: int,
    ) -> None:
        self.recipe = recipe
        self.val = self.calibration_set = None
        self.calibration_split = self.val_split = ""
        self.notes: list[str] = []
        name = recipe.dataset.dataset
        if data_dir is None and not (trained_here and name == "digits"):
            return
        if data_dir is not None and name in ("digits", "synthetic"):
            name = "imagefolder"  # a folder was given, and these have none
        section = recipe.dataset.model_copy(update={"data_dir": data_dir, "dataset": name})
        section = section.model_copy(update={"val_split": val_split or section.val_split})
        self.val_split = section.val_split
        self.val = _some(self._numbered(section, class_names, trained_here), num_images)
        if num_calibration:
            has_train = name != "imagefolder" or (data_dir is not None and (data_dir / section.train_split).is_dir())
            self.calibration_split = section.train_split if has_train else section.val_split
            self.calibration_set = _some(build_split(section, "train" if has_train else "val"), num_calibration)

    def _numbered(self, section: Dataset, class_names: list[str], trained_here: bool) -> Source:
        try:
            return build_val(section, class_names)
        except DataError:
            if trained_here:
                raise
            images = build_val(section)
            if len(images.class_names) != len(class_names):
                raise
            self.notes.append("the folders are not named as the classes are: taken in sorted order instead")
            return images

    def labeled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the validation split: pixels (B, C, H, W) uint8, labels (B,)."""
        yield from self._batches(self.val)

    def calibration(self) -> list[Tensor]:
        """Batches of pixels (B, C, H, W) uint8."""
        return [pixels for pixels, _ in self._batches(self.calibration_set)]

    def _batches(self, images: Source | None) -> Iterator[tuple[Tensor, Tensor]]:
        if images is None:
            return
        transform = build_eval_transform(self.recipe.augmentation, in_channels=self.recipe.model.in_channels)
        for batch in build_eval_loader(images, transform, batch_size=BATCH_SIZE):
            assert batch.targets is not None
            yield batch.images, batch.targets


def _some(images: Source, count: int) -> Source:
    return images if not count or count >= len(images) else images.subset(count)
