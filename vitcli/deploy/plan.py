"""What an export is asked for, and what is refused before any work begins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitcli.deploy.formats import need, open_format
from vitcli.errors import UsageError


@dataclass(frozen=True)
class ExportPlan:
    """The options of `vitcli export`."""

    to: str  #: name of a format
    precision: str = "fp32"  #: one that the format offers
    #: pixels: uint8 (B, H, W, C) in, probabilities out; normalized: float32 (B, C, H, W) in, logits out
    input: Literal["pixels", "normalized"] = "pixels"
    batch: int | None = None  #: the only batch size that the artifact accepts; None: any
    device: Literal["cpu", "cuda"] = "cpu"  #: where the artifact is to run, if the format compiles for a device
    data_dir: Path | None = None  #: labeled images for the comparison and for int8 calibration; None: those of the run
    val_split: str | None = None  #: None: the one of the recipe
    num_images: int = 2000  #: images of the validation split in the comparison; 0: all
    num_calibration: int = 300  #: images of the training split from which int8 ranges are measured
    node_modules: Path | None = None  #: where npm has installed what --to web copies; None: ./node_modules
    accept: bool = False  #: write an artifact that is out of tolerance; its card records the deviation

    @property
    def takes_pixels(self) -> bool:
        return self.input == "pixels"


def check_plan(plan: ExportPlan) -> None:
    """UsageError if there is no such format, or if the format or this machine cannot do what the plan says."""
    form = open_format(plan.to, to="export")
    if plan.precision not in form.PRECISIONS:
        help = f"--precision is one of {', '.join(form.PRECISIONS)}"
        raise UsageError(f"the format {plan.to} has no {plan.precision}", help=help)
    if plan.precision.startswith("int8"):
        need(form.NEEDS["quantize"], extra="quantize", why=plan.precision)
    if plan.device == "cuda" and plan.precision == "int8":
        raise UsageError("static int8 is for CPUs", help="on a GPU use bf16 or fp16")
    if plan.device not in form.DEVICES:
        raise UsageError(f"{plan.to} is exported on the CPU, wherever it will run", help="remove --device")
    if plan.device == "cuda" and not _has_gpu():
        help = "export on the kind of machine that will run the network"
        raise UsageError("--device cuda: this machine has no GPU", help=help)
    if form.BATCH and plan.batch not in (None, form.BATCH):
        raise UsageError(f"the format {plan.to} takes {form.BATCH} image at a time", help="remove --batch")


def _has_gpu() -> bool:
    import torch  # not above: a wrong plan is refused before it is imported, which takes seconds

    return torch.cuda.is_available()
