"""`vitcli data pack`: a data set in two files for each split, which are read faster and opened at once."""

from pathlib import Path
from typing import Literal

from vitcli.data.datasets import build_parts
from vitcli.data.decode import BadImage
from vitcli.data.pack import Packed, Packing, pack
from vitcli.data.source import Source
from vitcli.errors import DiskError, UsageError, is_disk_full
from vitcli.log import Reporter, phase
from vitcli.recipe.load import Recipe

#: unreadable images that are named on the terminal
MOST_NAMED = 10


def pack_splits(
    recipe: Recipe, out: Path, packing: Packing, *, on_bad_image: Literal["fail", "skip"] = "fail"
) -> dict[str, Packed]:
    """Pack the splits of `recipe` into `out`/train and `out`/val, and say what came of it.

    A packing that was interrupted, or that failed by unreadable images, is continued by the same call.

    Raises:
        VitcliError: see `errors.py`; DataError names the images that cannot be read, unless they are skipped.
    """
    reporter = Reporter(enabled=True)
    parts = build_parts(recipe.dataset, recipe.system.seed)
    names = {"train": recipe.dataset.train_split, "val": recipe.dataset.val_split}
    results = {}
    for part, source in parts.items():
        name = names[part]
        reporter.notes(source.notes)
        results[name] = _packed(name, source, out / name, packing, skips=on_bad_image == "skip")
        reporter.say(f"{name}  {_in_words(results[name])}")
        reporter.notes(_bad_in_words(results[name].bad))
    hold_out = "" if "val" in parts else " --val_ratio 0.2"
    reporter.next(f"vitcli train -c RECIPE --dataset packed --data_dir {out}{hold_out}")
    return results


def _packed(name: str, source: Source, folder: Path, packing: Packing, *, skips: bool) -> Packed:
    with phase(f"packing {name}", len(source)) as advance:
        try:
            return pack(source, folder, packing, skips=skips, advance=advance)
        except OSError as error:
            if is_disk_full(error):
                help = "make room, and run the same command again: it continues"
                raise DiskError(f"the disk is full: {name} is not complete", help=help) from None
            raise UsageError(f"cannot write {folder}: {error.strerror or error}") from None


def _in_words(packed: Packed) -> str:
    parts = [f"{packed.num_images:,} images, {packed.num_bytes / 2**20:,.1f} MiB"]
    if packed.num_resized:
        parts.append(f"{packed.num_resized:,} of them resized")
    if packed.bad:
        parts.append(f"{len(packed.bad):,} left out")
    return ", ".join(parts)


def _bad_in_words(bad: list[BadImage]) -> list[str]:
    named = [f"left out: {image.path}: {image.reason}" for image in bad[:MOST_NAMED]]
    return [*named, f"… and {len(bad) - MOST_NAMED:,} more"] if len(bad) > MOST_NAMED else named
