"""`vitcli validate OUT`: the accuracy of an exported network itself, in its own runtime, counted image by image."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vitcli.commands.prediction_files import check_writable
from vitcli.data.datasets import build_val
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader, default_num_workers
from vitcli.data.source import Source
from vitcli.deploy.artifact import RECIPE, Artifact, open_artifact
from vitcli.deploy.classify import Classifier
from vitcli.distributed import num_launched
from vitcli.engine.run_dir import write_result
from vitcli.errors import DataError, UsageError
from vitcli.evaluators.top1 import Counts, EvalResult, result_rows
from vitcli.log import Reporter
from vitcli.recipe.flat_yaml import read_flat_yaml
from vitcli.recipe.load import Recipe, load_recipe

#: recipe keys that say something to an exported network: which images, and how they are read
TAKEN = (
    "dataset", "data_dir", "val_split", "dataset_download", "batch_size", "val_batch_size", "num_parallel_workers",
    "max_image_pixels", "device",
)  # fmt: skip
#: what the recipe it was trained with supplies where nothing else does
_OF_THE_DATA = ("dataset", "data_dir", "val_split", "batch_size", "val_batch_size")


def validate_exported(
    folder: Path, keys: Mapping[str, str], *, config: str | None = None, json_file: Path | None = None
) -> EvalResult:
    """Evaluate the artifact in `folder` on a validation split.

    Args:
        keys: recipe keys as typed; those of `TAKEN` only.
        config: a recipe, whose data set is taken; None: that of the recipe in the artifact.
        json_file: also write the result there.

    Raises:
        VitcliError: see `errors.py`.
    """
    _check(keys)
    check_writable(json_file)
    artifact = open_artifact(folder)
    recipe = _recipe(artifact, keys, config)
    reporter = Reporter(enabled=True)
    images = _images(recipe, artifact)
    for note in images.notes:
        reporter.note(note)
    section = recipe.dataset
    num_workers = default_num_workers() if section.num_parallel_workers is None else section.num_parallel_workers
    result = validate_artifact(
        artifact,
        images,
        batch_size=section.val_batch_size or section.batch_size,
        num_workers=num_workers,
        device=None if recipe.system.device == "auto" else recipe.system.device,
    )
    reporter.table("validation", [("artifact", str(folder)), *_rows(artifact, result)])
    if json_file:
        facts = {"artifact": str(folder), "format": artifact.format, "precision": artifact.precision}
        write_result(json_file, result.as_dict() | facts)
    return result


def validate_artifact(
    artifact: Artifact,
    images: Source,
    *,
    batch_size: int,
    num_workers: int,
    threads: int | None = None,
    device: str | None = None,
) -> EvalResult:
    """Classify each of `images` once; its labels count as `artifact.class_names` do.

    Args:
        batch_size: images at a time, where the network does not have a fixed number.
        num_workers: decoding processes; 0: none beside this one.
        threads, device: as for `Classifier`.

    Raises:
        DataError: an image cannot be read. UsageError: the runtime of this format is not installed.
    """
    assert images.class_names == artifact.class_names
    classify = Classifier(artifact, threads=threads, device=device)
    transform = build_eval_transform(artifact.preprocessing, in_channels=artifact.in_channels)
    counts = Counts(torch.device("cpu"))
    smallest = float(np.finfo(np.float32).tiny)  # the logarithm of 0 would make one image outweigh all others
    for batch in build_eval_loader(images, transform, batch_size=batch_size, num_workers=num_workers):
        probabilities = classify(batch.images.permute(0, 2, 3, 1).contiguous().numpy())
        assert batch.targets is not None
        counts.add(torch.from_numpy(probabilities).clamp(min=smallest).log(), batch.targets)
    result = counts.result()
    assert result.num_images == len(images)
    return result


def _check(keys: Mapping[str, str]) -> None:
    """Refuse what an exported network cannot be told any more."""
    if num_launched() > 1:
        raise UsageError("an artifact is validated by one process", help="start it without torchrun")
    others = [f"--{name}" for name in keys if name not in TAKEN]
    if others:
        raise UsageError(
            f"{', '.join(others)}: an artifact is as it was exported, preprocessing included",
            help=f"keys that apply: {', '.join(TAKEN)}",
        )


def _recipe(artifact: Artifact, keys: Mapping[str, str], config: str | None) -> Recipe:
    """The recipe whose data set is meant; the rest of it is not looked at."""
    file = artifact.folder / RECIPE
    if config is not None or not file.is_file():
        return load_recipe(config, keys)
    entries, _ = read_flat_yaml(file)
    known = {entry.key: entry.value for entry in entries if entry.key in _OF_THE_DATA and entry.key not in keys}
    return load_recipe(None, keys, **known)


def _images(recipe: Recipe, artifact: Artifact) -> Source:
    """The validation split, numbered as the artifact numbers its classes."""
    names = artifact.class_names
    try:
        return build_val(recipe.dataset, names)
    except DataError:
        if (artifact.folder / RECIPE).exists():  # trained here, on folders of these names
            raise
        images = build_val(recipe.dataset)  # the hub's names are for people: "tench, Tinca tinca" for n01440764
        if len(images.class_names) != len(names):
            raise
        notes = [*images.notes, "the folders are not named as the classes are: taken in sorted order instead"]
        images.class_names, images.notes = names, notes
        return images


def _rows(artifact: Artifact, result: EvalResult) -> list[tuple[str, str]]:
    form = f"{artifact.format}, {artifact.precision}"
    return [("format", form), *result_rows(result)]
