"""Opens what `--ckpt_path` names: a run, a checkpoint in it, a file of weights, or an address of one."""

from pathlib import Path

from vitcli.errors import DataError
from vitcli.weights.checkpoint_folders import newest_valid
from vitcli.weights.fetch import is_remote
from vitcli.weights.hub_folder import is_hub_folder
from vitcli.weights.read import Weights, read_weights


def open_weights(source: str | Path, *, use_ema: bool | None = None) -> Weights:
    """The weights in `source`.

    Args:
        source: a run (its best checkpoint, else its newest valid one), or anything that `read_weights` accepts.
        use_ema: the moving average or the raw weights; None: the average if there is one.

    Raises:
        DataError: there is nothing, or it is damaged. WeightsError: it cannot be loaded.
    """
    path = Path(source)
    if is_remote(source) or not path.is_dir() or is_hub_folder(path):
        return read_weights(source, use_ema=bool(use_ema))
    path = _checkpoint_of(path)
    if use_ema is None:
        use_ema = (path / "ema.safetensors").exists()
    return read_weights(path, use_ema=use_ema)


def _checkpoint_of(folder: Path) -> Path:
    if (folder / "MANIFEST.json").exists() or (folder / "model.safetensors").exists():
        return folder
    best = folder / "checkpoints" / "best"
    if best.exists():
        return best.resolve()
    newest, damaged = newest_valid(folder)
    if newest is None:
        found = "; ".join(damaged) or "it has no checkpoint"
        raise DataError(
            f"{folder} is not a run with a checkpoint: {found}",
            help="give a run, a checkpoint folder, or a weights file",
        )
    return newest
