"""What a training refuses because of its recipe and the disk alone: before PyTorch is imported, which takes seconds."""

import os
from importlib.util import find_spec
from pathlib import Path

from vitcli.data.data_dir import check_data_dir
from vitcli.data.file_kinds import kind_of_file
from vitcli.engine import run_dir
from vitcli.errors import ResumeError, UsageError
from vitcli.recipe.load import Recipe
from vitcli.weights.address import check_there
from vitcli.weights.checkpoint_folders import checkpoints

NOTHING_CHANGED = "nothing was changed; start a new run"


def refuse_early(recipe: Recipe) -> None:
    """Raise what the training itself would raise later."""
    section = recipe.dataset
    check_start(recipe)
    if os.environ.get("RANK", "0") == "0" and folder_to_resume(recipe) is None:  # others may come after it is made
        if recipe.model.ckpt_path is not None:
            check_there(recipe.model.ckpt_path)
        run_dir.check_free(recipe.checkpoint.run_dir)
    if section.dataset in ("imagefolder", "imagenet") and not (section.data_dir and kind_of_file(section.data_dir)):
        check_data_dir(section)


def check_start(recipe: Recipe) -> None:
    """Raise UsageError if no training can start from this recipe: weights or a package are missing."""
    _check_weights(recipe)
    _check_frozen(recipe)
    _check_float8(recipe)


def _check_weights(recipe: Recipe) -> None:
    """Raise UsageError if a recipe for fine-tuning is given no weights: its rates and epochs are for trained ones."""
    if recipe.model.ckpt_path is None and not recipe.model.from_scratch:
        message = f"the recipe {recipe.name} starts from trained weights, but there is no ckpt_path"
        raise UsageError(message, help="add --ckpt_path SOURCE, or --from_scratch True to start from random values")


def _check_frozen(recipe: Recipe) -> None:
    """Refuse to freeze or to quantize weights that are random."""
    freeze, quantize = recipe.optimizer.freeze, recipe.model.quantize
    if recipe.model.ckpt_path is not None:
        return
    if isinstance(freeze, str):
        raise UsageError(f"freeze: {freeze}, but the weights are random", help="give --ckpt_path, or remove freeze")
    if quantize != "none":
        help = "train without quantize first, then give that run as --ckpt_path"
        raise UsageError(f"quantize: {quantize}, but the weights are random", help=help)


def _check_float8(recipe: Recipe) -> None:
    """Raise UsageError if the package that multiplies in 8 bits is missing."""
    if recipe.system.amp == "fp8" and find_spec("torchao") is None:
        message = "amp fp8 needs the package torchao, which is not installed"
        raise UsageError(message, help="pip install 'vitcli[fp8]', or use --amp bf16")


def folder_to_resume(recipe: Recipe) -> Path | None:
    """The folder of the run that is to be continued; None where a new one begins.

    Raises:
        ResumeError: there is no such run, or it has no checkpoint.
    """
    wanted, folder = recipe.checkpoint.resume, recipe.checkpoint.run_dir
    if wanted is None:
        return None
    if wanted == "auto":
        assert folder is not None  # the recipe check requires it
        return folder if run_dir.is_there(folder) or checkpoints(folder) else None
    folder = _run_of(wanted)
    if not checkpoints(folder):
        raise ResumeError(f"{folder} cannot be continued: it holds no checkpoint", help=NOTHING_CHANGED)
    return folder


def _run_of(wanted: str) -> Path:
    folder = Path(wanted)
    if folder.parent.name == "checkpoints":
        help = f"--resume {folder.parents[1]} continues from its newest; a new run from this one: --ckpt_path {wanted}"
        raise ResumeError(f"{wanted} is a checkpoint, not a run", help=help)
    if not folder.is_dir():
        raise ResumeError(f"there is no run {wanted}", help="give the folder of a run, as printed when it started")
    return folder
