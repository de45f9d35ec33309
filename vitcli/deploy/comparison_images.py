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

BATCH_SIZE = 50
#: data sets that are not read from a folder
_WITHOUT_FOLDER = ("digits", "synthetic")


class ComparisonImages:
    """Part of the validation split, with labels, and images for calibration; None if there is no data.

    The latter are from the training split, or from the validation split if there is no other. Raises what `numbered`
    and `build_split` raise: the layout of the folder is wrong, or its classes are not the network's.
    """

    def __init__(self, opened: Opened, plan: ExportPlan) -> None:
        self.recipe = opened.recipe
        self.val: Source | None = None
        self.calibration_set: Source | None = None
        self.calibration_split = self.val_split = ""
        self.notes: list[str] = []
        section, data_dir = self.recipe.dataset, plan.data_dir
        if data_dir is None and not (opened.named_by == "name" and section.dataset == "digits"):
            return
        name = "imagefolder" if data_dir and section.dataset in _WITHOUT_FOLDER else section.dataset
        changes = {"data_dir": data_dir, "dataset": name, "val_split": plan.val_split or section.val_split}
        section = section.model_copy(update=changes)
        self.val_split = section.val_split
        images = numbered(section, opened.class_names, opened.named_by, multi_label=opened.multi_label)
        self.val = images.subset(plan.num_images or len(images))
        self.notes = self.val.notes
        if plan.precision == "int8":
            has_train = name != "imagefolder" or data_dir is None or (data_dir / section.train_split).is_dir()
            split = "train" if has_train else "val"
            self.calibration_split = section.train_split if split == "train" else section.val_split
            self.calibration_set = build_split(section, split, multi_label=None).subset(plan.num_calibration)

    def batches(self, images: Source) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, C, H, W) uint8 and targets of `val` or `calibration_set`, as `Batch` describes them."""
        transform = build_eval_transform(self.recipe.augmentation, in_channels=self.recipe.model.in_channels)
        for batch in build_eval_loader(images, transform, batch_size=BATCH_SIZE):
            assert batch.targets is not None
            yield batch.images, batch.targets
