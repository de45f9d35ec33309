"""The images on which an export is compared with its source and calibrated: pixels from a data folder, or none."""

from collections.abc import Iterator

from torch import Tensor

from vitcli.data.datasets import build_split
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.data.source import Source
from vitcli.deploy.plan import ExportPlan
from vitcli.networks.classes import numbered
from vitcli.networks.opened import Opened
from vitcli.recipe.schema import Dataset

BATCH_SIZE = 50
#: data sets that are not read from a folder
_WITHOUT_FOLDER = ("digits", "synthetic")


class ComparisonImages:
    """Part of the validation split, with labels, and of the training split; both empty if there is no data.

    Images for calibration are from the training split, or from the validation split if there is no other.

    Raises:
        DataError: the folder has not the expected layout, or has classes that the network was not trained for.
        WeightsError: the classes cannot be told; see `numbered`.
    """

    def __init__(self, opened: Opened, plan: ExportPlan) -> None:
        self.recipe = opened.recipe
        self.val = self.calibration_set = None
        self.calibration_split = self.val_split = ""
        self.notes: list[str] = []
        section, data_dir = self.recipe.dataset, plan.data_dir
        if data_dir is None and not (opened.named_by == "data" and section.dataset == "digits"):
            return
        name = "imagefolder" if data_dir and section.dataset in _WITHOUT_FOLDER else section.dataset
        changes = {"data_dir": data_dir, "dataset": name, "val_split": plan.val_split or section.val_split}
        section = section.model_copy(update=changes)
        self.val_split = section.val_split
        self.val = _some(numbered(section, opened.class_names, opened.named_by), plan.num_images)
        self.notes = self.val.notes
        if plan.precision == "int8":
            split = "train" if _has_train(section) else "val"
            self.calibration_split = section.train_split if split == "train" else section.val_split
            self.calibration_set = _some(build_split(section, split), plan.num_calibration)

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


def _has_train(section: Dataset) -> bool:
    folder = section.data_dir
    return section.dataset != "imagefolder" or (folder is not None and (folder / section.train_split).is_dir())


def _some(images: Source, count: int) -> Source:
    return images if not count or count >= len(images) else images.subset(count)
