"""`vitcli embed`: the features of every image in a folder, written to one file with names, labels and their origin."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vitcli.data.find_images import find_images
from vitcli.data.sources.folder import FolderImages
from vitcli.deploy.predictions import check_writable
from vitcli.distributed import joined
from vitcli.engine.failures import memory_in_words
from vitcli.engine.precision import build_autocast
from vitcli.errors import DiskError, UsageError, is_disk_full
from vitcli.evaluators.evaluator import Setting
from vitcli.evaluators.features import all_features
from vitcli.evaluators.images import EvalImages
from vitcli.log import Reporter
from vitcli.networks.opened import Opened, open_features
from vitcli.networks.preprocessing import preprocessing
from vitcli.networks.provenance import source_facts, versions


def embed(
    source: str, folder: Path, out: Path, *, batch_size: int = 64, device: str = "auto", use_ema: bool | None = None
) -> None:
    """Write the features of every image below `folder` to `out`.

    If all images are in subfolders, the folders directly below `folder` are taken as classes.

    Args:
        source: as `--ckpt_path`: a run, a checkpoint, weights, or an address.
        out: .npz with the arrays features (N, D) float32, names (N,), provenance (JSON) and, with labels,
            labels (N,) int64 and class_names (C,); or .parquet with the columns name, features, label and class_name,
            and the provenance as metadata `vitcli`. An existing file is replaced.
        device: "auto", "cpu", "cuda" or "mps".
        use_ema: the moving average or the raw weights; None: the average if there is one.

    Raises:
        VitcliError: see `errors.py`; DataError if an image cannot be read, and nothing is written.
    """
    _check_out(out)
    reporter = Reporter(enabled=True)
    opened = open_features(source, use_ema=use_ema)
    reporter.notes(opened.notes)
    images, labeled = _images(folder, opened.recipe.dataset.max_image_pixels)
    recipe = opened.recipe.changed(batch_size=batch_size, val_batch_size=None)
    with joined(device, distributed=False) as world, _progress(len(images)) as advance:
        evaluated = EvalImages(Setting(recipe, images, world, build_autocast(recipe, world.device)), images)
        with memory_in_words("lower --batch_size"):
            network = opened.model.to(world.device)
            features = all_features(evaluated, network, answers=lambda batch, _: advance(len(batch))).cpu().numpy()
    names = [_readable(images.name(index)) for index in range(len(images))]
    classes = [_readable(name) for name in images.class_names or ()]
    labels = images.targets if labeled else None
    write = _write_npz if out.suffix == ".npz" else _write_parquet
    with _replaced(out) as file:
        write(file, features, names, labels, classes, json.dumps(_provenance(opened, folder)))
    known = f"{len(classes):,} folders: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"
    rows = [
        ("model", opened.recipe.model.model),
        ("images", f"{len(images):,}"),
        ("features", f"{features.shape[1]:,} per image"),
        ("labels", known if labeled else "none"),
        ("file", str(out)),
    ]
    reporter.table("embedding", rows)


def _check_out(out: Path) -> None:
    """UsageError for another suffix, a folder that does not exist, or if pyarrow is needed and not installed."""
    check_writable(out)
    if out.suffix not in (".npz", ".parquet"):
        raise UsageError(f"cannot write features to {out}", help="give a file name that ends in .npz or .parquet")
    try:
        if out.suffix == ".parquet":
            import pyarrow.parquet  # noqa: F401
    except ImportError:
        help = "pip install 'vitcli[parquet]', or write an .npz file"
        raise UsageError("Parquet files need pyarrow, which is not installed", help=help) from None


def _write_npz(
    out: Path, features: np.ndarray, names: list[str], labels: np.ndarray | None, classes: list[str], provenance: str
) -> None:
    arrays = {"features": features, "names": np.array(names), "provenance": np.array(provenance)}
    if labels is not None:
        arrays |= {"labels": labels, "class_names": np.array(classes)}
    with out.open("wb") as file:  # given a name, savez would add a suffix
        np.savez(file, allow_pickle=False, **arrays)


def _write_parquet(
    out: Path, features: np.ndarray, names: list[str], labels: np.ndarray | None, classes: list[str], provenance: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    columns: dict[str, Any] = {"name": pa.array(names), "features": vectors}
    if labels is not None:
        columns |= {"label": pa.array(labels), "class_name": pa.array([classes[label] for label in labels])}
    pq.write_table(pa.table(columns).replace_schema_metadata({"vitcli": provenance}), out)


def _images(folder: Path, max_image_pixels: int) -> tuple[FolderImages, bool]:
    """All images below `folder`, and whether the folders directly below it are their classes."""
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder", help="give a folder of images")
    paths, _ = find_images([str(folder)])
    classes: dict[str, list[str]] = {}
    for path in (os.path.relpath(path, folder) for path in paths):
        first, inside, _ = path.partition(os.sep)
        classes.setdefault(first if inside else "", []).append(path)
    labeled = "" not in classes
    if not labeled:
        classes = {"": [path for some in classes.values() for path in some]}
    return FolderImages(folder, dict(sorted(classes.items())), max_image_pixels=max_image_pixels, notes=[]), labeled


def _provenance(opened: Opened, folder: Path) -> dict[str, Any]:
    """Which network made the features, and what it was given."""
    return {
        "model": opened.recipe.model.model,
        **source_facts(opened),
        "preprocessing": preprocessing(opened.recipe),
        "images": str(folder.resolve()),
        "versions": versions("vitcli", "torch"),
    }


def _readable(name: str) -> str:
    """A file name as valid Unicode; bytes that are not UTF-8 as escape sequences."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A temporary file that becomes `out` once it is complete; errors of the file system in words."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        if is_disk_full(error):
            raise DiskError(f"the disk is full: {out} was not written") from None
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Call the function with the number of images done; on a terminal there is a bar."""
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("images", total=total)
        yield lambda count: progress.advance(task, count)
