"""The images on which an export is compared with its source and calibrated: pixels from a data folder, or none."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from vitcli.data.batch import BadSample
from vitcli.data.datasets import build_split
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.data.source import Source
from vitcli.deploy.plan import ExportPlan
from vitcli.errors import UsageError, VitcliError
from vitcli.evaluators.evaluator import UnreadableImages
from vitcli.networks.classes import numbered
from vitcli.networks.opened import Opened
from vitcli.recipe.schema import Dataset
from vitcli.recipe.schema.dataset import WITHOUT_FOLDER

BATCH_SIZE = 50


class ComparisonImages:
    """Part of the validation split, with labels, and images for calibration; None if there is no data.

    The latter are from the training split, or from the validation split if there is no other. The data is that of
    `plan.data_dir`, else that of the run, as far as it is still there.

    Raises:
        DataError, UsageError: the layout of the given folder is wrong, its classes are not the network's, or int8 has
            no images.
    """

    def __init__(self, opened: Opened, plan: ExportPlan) -> None:
        self.recipe = opened.recipe
        self.leaves_out_bad = opened.recipe_of_run.get("on_bad_image") == "skip"
        self.val: Source | None = None
        self.calibration_set: Source | None = None
        self.calibration_split = self.val_split = ""
        self.notes: list[str] = []
        self.bad: list[BadSample] = []  #: of those that `batches` has read
        if plan.data_dir:
            self._take(_given(opened.recipe.dataset, plan.data_dir), opened, plan)
        elif "dataset" in opened.recipe_of_run:
            self._take_if_there(opened, plan)
        if plan.precision == "int8" and self.val is None:
            help = "give --data_dir with train/CLASS/... and val/CLASS/..., or a --precision that needs no images"
            raise UsageError("int8 needs images: the value ranges of all layers are measured on them", help=help)

    def _take_if_there(self, opened: Opened, plan: ExportPlan) -> None:
        """Of the run; that its data is gone, or not labeled, is no reason not to export."""
        section = opened.recipe.dataset
        try:
            self._take(section, opened, plan)
        except VitcliError as error:
            if plan.precision == "int8":
                raise
            self.notes = [f"the data of the run ({section.data_dir or section.dataset}) is not used: {error.message}"]
            return
        where = section.data_dir or f"the data set {section.dataset}"
        self.notes = [f"compared on the run's own validation images, {where}", *self.notes]

    def _take(self, section: Dataset, opened: Opened, plan: ExportPlan) -> None:
        section = section.model_copy(update={"val_split": plan.val_split or section.val_split})
        images = numbered(section, opened.class_names, opened.named_by, multi_label=opened.multi_label)
        self.val_split = section.val_split
        self.notes = images.notes
        val = images.subset(plan.num_images or len(images))
        if plan.precision == "int8":
            given = plan.data_dir if section.dataset == "imagefolder" else None
            has_train = given is None or (given / section.train_split).is_dir()
            split = "train" if has_train else "val"
            self.calibration_split = section.train_split if split == "train" else section.val_split
            self.calibration_set = build_split(section, split, multi_label=None).subset(plan.num_calibration)
        self.val = val

    def batches(self, images: Source) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, C, H, W) uint8 and targets of `val` or `calibration_set`, as `Batch` describes them.

        Raises:
            UnreadableImages: after the last batch, unless the run has `on_bad_image: skip`: then they are left out.
        """
        transform = build_eval_transform(self.recipe.augmentation, in_channels=self.recipe.model.in_channels)
        bad: list[BadSample] = []
        for batch in build_eval_loader(images, transform, batch_size=BATCH_SIZE, on_bad_image="list"):
            bad += batch.bad
            if len(batch):
                assert batch.targets is not None
                yield batch.images, batch.targets
        if bad and not self.leaves_out_bad:
            raise UnreadableImages(bad, len(images))
        self.bad += [sample for sample in bad if sample not in self.bad]


def _given(section: Dataset, data_dir: Path) -> Dataset:
    """The data of the run's recipe, but from another folder."""
    name = "imagefolder" if section.dataset in WITHOUT_FOLDER else section.dataset
    return section.model_copy(update={"data_dir": data_dir, "dataset": name})
