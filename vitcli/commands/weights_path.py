"""Opens what `--ckpt_path` names: a run, a checkpoint in it, or a file of weights."""

from pathlib import Path

from vitcli.engine import checkpoint
from vitcli.errors import DataError
from vitcli.weights.read import Weights, read_weights


def open_weights(path: Path, *, use_ema: bool | None = None) -> Weights:
    """The weights a user means by `path`.

    Args:
        path: a run (its best checkpoint, else its newest valid one), a checkpoint folder, or a file.
        use_ema: the average or the raw weights; None: the average where there is one.

    Raises:
        DataError: nothing there, or damaged. WeightsError: not loadable.
    """
    if path.is_dir():
        path = _checkpoint_of(path)
        if use_ema is None:
            use_ema = (path / "ema.safetensors").exists()
    return read_weights(path, use_ema=bool(use_ema))


def _checkpoint_of(folder: Path) -> Path:
    if (folder / "MANIFEST.json").exists() or (folder / "model.safetensors").exists():
        return folder
    best = folder / "checkpoints" / "best"
    if best.exists():
        return best.resolve()
    newest, damaged = checkpoint.newest_valid(folder)
    if newest is None:
        found = "; ".join(damaged) or "no checkpoint in it"
        raise DataError(
            f"{folder} is no run with a checkpoint: {found}", help="give a run, a checkpoint folder, or a weights file"
        )
    return newest
