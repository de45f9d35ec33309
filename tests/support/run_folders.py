"""Run folders written by hand, as training writes them, with invented numbers."""

import json
import time
from pathlib import Path
from typing import Any

from vitcli.recipe.load import load_recipe
from vitcli.recipe.write import recipe_text

START = 1_700_000_000.0  #: seconds since 1970
EPOCH_SECONDS = 60.0


def write_run(
    path: Path,
    recipe: str | None = None,
    *,
    status: dict[str, Any] | None = None,
    values: tuple[float, ...] = (10.0, 30.0, 20.0),
    **keys: Any,
) -> Path:
    """A run of `recipe`, changed by `keys`, with 4 steps per epoch and one top1 of `values` after each."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe_text(load_recipe(recipe, epoch_size=len(values), **keys)))
    (path / "env.json").write_text(json.dumps({"command": ["vitcli", "train"], "torch": "2.0", "world_size": 1}))
    split = {"num_images": 8, "sha256": "00"}
    (path / "data.json").write_text(json.dumps({"class_names": ["cat", "dog"], "train": split, "val": split}))
    facts = {"status": "done", "metric": "top1", "step": 4 * len(values)} if status is None else status
    written = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(START))
    (path / "status.json").write_text(json.dumps({"time": written} | facts))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(values)))
    return path


def lines(values: tuple[float, ...]) -> list[dict[str, Any]]:
    """Of metrics.jsonl; after each epoch a line of training, and a line of evaluation ten seconds later."""
    found = []
    for epoch, value in enumerate(values, 1):
        step, when = 4 * epoch, START + EPOCH_SECONDS * epoch
        found.append({"kind": "train", "step": step, "epoch": epoch, "loss": 1 / epoch, "lr": 0.1, "time": when})
        found.append({"kind": "val", "step": step, "epoch": epoch, "nll": 1.0, "top1": value, "time": when + 10})
    return found
