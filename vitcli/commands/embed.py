"""`vitcli embed`: the features of every image in a folder, written to one file with names, labels and their origin."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.class_names import class_name, valid_text
from vitcli.data.find_images import find_images
from vitcli.data.sources.folder import FolderImages
from vitcli.disk import check_writable
from vitcli.distributed import joined
from vitcli.engine.failures import memory_in_words
from vitcli.engine.precision import build_autocast
from vitcli.errors import UsageError
from vitcli.evaluators.evaluator import Setting
from vitcli.evaluators.images import EvalImages, all_features
from vitcli.log import Reporter, phase
from vitcli.networks.opened import Opened, open_features
from vitcli.networks.precedence import preprocessing
from vitcli.networks.provenance import source_facts, versions
from vitcli.recipe.load import Recipe
from vitcli.weights.convert import atomic


def embed(
    source: str, folder: Path, out: Path, *, batch_size: int = 64, device: str = "auto", recipe: Recipe | None = None
) -> None:
    """Write the features of every image below `folder` to `out`.

    If all images are in subfolders, the folders directly below `folder` are taken as classes.

    Args:
        out: .npz with the arrays features (N, D) float32, names (N,), provenance (JSON) and, with labels,
            labels (N,) int64 and class_names (C,); or .parquet with the columns name, features, label and class_name,
            and the provenance as metadata `vitcli`. An existing file is replaced.
        source, device: as `vitcli embed` describes them.
        recipe: what the user says of the network and its images.

    Raises:
        VitcliError: see `errors.py`; DataError if an image cannot be read, and nothing is written.
    """
    _check_out(out)
    reporter = Reporter(enabled=True)
    with phase("loading the network"):
        opened = open_features(source, recipe=recipe)
    reporter.notes(opened.notes)
    with phase("listing images"):
        images, labeled = _images(folder, opened.recipe.dataset.max_image_pixels)
    recipe = opened.recipe.changed(batch_size=batch_size, val_batch_size=None)
    with joined(device, distributed=False) as world:
        setting = Setting(recipe, images, world, build_autocast(recipe, world.device))
        evaluated = EvalImages(setting, images, title="embedding")
        with memory_in_words("lower --batch_size"):
            network = opened.model.to(world.device)
            features = all_features(evaluated, network).cpu().numpy()
    names = [valid_text(images.name(index)) for index in range(len(images))]
    arrays: dict[str, Any] = {"features": features, "names": np.array(names)}
    classes = images.class_names or []
    if labeled:
        arrays |= {"labels": images.targets, "class_names": np.array(classes)}
    with atomic(out) as file:
        write = _write_npz if out.suffix == ".npz" else _write_parquet
        write(file, arrays, json.dumps(_provenance(opened, folder)))
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


def _write_npz(out: Path, arrays: dict[str, Any], provenance: str) -> None:
    with out.open("wb") as file:  # given a name, savez would add a suffix
        np.savez(file, allow_pickle=False, **arrays, provenance=np.array(provenance))


def _write_parquet(out: Path, arrays: dict[str, Any], provenance: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = arrays["features"]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    columns: dict[str, Any] = {"name": pa.array(arrays["names"]), "features": vectors}
    if "labels" in arrays:
        names = arrays["class_names"][arrays["labels"]]
        columns |= {"label": pa.array(arrays["labels"]), "class_name": pa.array(names)}
    pq.write_table(pa.table(columns).replace_schema_metadata({"vitcli": provenance}), out)


def _images(folder: Path, max_image_pixels: int) -> tuple[FolderImages, bool]:
    """All images below `folder`, and whether the folders directly below it are their classes."""
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder", help="give a folder of images")
    paths, _ = find_images([str(folder)])
    classes: dict[str, list[str]] = {}
    for path in (os.path.relpath(path, folder) for path in paths):
        first, inside, _ = path.partition(os.sep)
        classes.setdefault(class_name(first) if inside else "", []).append(path)
    labeled = "" not in classes
    if not labeled:
        classes = {"": [path for some in classes.values() for path in some]}
    return FolderImages(folder, dict(sorted(classes.items())), max_image_pixels=max_image_pixels, notes=[]), labeled


def _provenance(opened: Opened, folder: Path) -> dict[str, Any]:
    return {
        "model": opened.recipe.model.model,
        **source_facts(opened),
        "preprocessing": preprocessing(opened.recipe),
        "images": str(folder.resolve()),
        "versions": versions("vitcli", "torch"),
    }
