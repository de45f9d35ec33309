"""One run as its folder tells it, read without torch, whatever happened to the files."""

import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vitcli.engine.run_lock import user_of
from vitcli.engine.sessions import seconds_of, sessions_in
from vitcli.errors import DataError, RecipeError
from vitcli.recipe.library import shipped_recipes
from vitcli.report.metrics_file import Line, Metrics, read_metrics
from vitcli.report.recipe_file import RecipeFile, read_recipe_file
from vitcli.weights.checkpoint_folders import STATE, checkpoints
from vitcli.weights.json_file import read_json

Value = TypeVar("Value")

#: keys of a recipe that say where a run is, not what it does
PLACES = ("run_dir", "resume", "dry_run")


class RunRecord:
    """A run folder. Every file is read once, when it is first asked for; one that cannot be read counts as empty.

    Attributes:
        path: as it was given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def notes(self) -> list[str]:
        """What is wrong with the files of the run, one sentence each."""
        _ = self.recipe, self.state, self.env, self.data, self.metrics
        return self._notes

    # -- files ------------------------------------------------------------------------------------------------------

    @cached_property
    def _recipe_file(self) -> RecipeFile:
        return self._read("recipe.yaml", read_recipe_file, RecipeFile(None, {}))

    @property
    def recipe(self) -> dict[str, Any]:
        """Every key of recipe.yaml with its value."""
        return self._recipe_file.values

    @property
    def recipe_name(self) -> str | None:
        """The name of the recipe that the run was started with."""
        return self._recipe_file.name

    @cached_property
    def state(self) -> dict[str, Any]:
        """status.json: status, time, sessions, and at the end step, metric, best, or message and exit_code."""
        return self._read("status.json", read_json, {})

    @cached_property
    def env(self) -> dict[str, Any]:
        """env.json: command, versions, machine."""
        return self._read("env.json", read_json, {})

    @cached_property
    def data(self) -> dict[str, Any]:
        """data.json: class_names; train and val with num_images and fingerprints."""
        return self._read("data.json", read_json, {})

    @cached_property
    def metrics(self) -> Metrics:
        metrics = self._read("metrics.jsonl", read_metrics, Metrics())
        if metrics.num_damaged:
            self._notes.append(f"metrics.jsonl: {metrics.num_damaged} lines cannot be read")
        return metrics

    @property
    def train_lines(self) -> list[Line]:
        """What was logged while training: step, epoch, loss, lr, images_per_second, …; by step."""
        return self.metrics.train_lines

    @property
    def val_lines(self) -> list[Line]:
        """What each evaluation found: step, epoch, and its numbers by name; by step."""
        return self.metrics.val_lines

    # -- how it went ------------------------------------------------------------------------------------------------

    @cached_property
    def user(self) -> str | None:
        """The process that trains in this folder now."""
        return user_of(self.path)

    @property
    def status(self) -> str:
        """done, running, killed, interrupted, diverged, failed, or unknown."""
        said = self.state.get("status")
        if self.user and said != "done":
            return "running"
        return "killed" if said == "running" else said if isinstance(said, str) else "unknown"

    @property
    def num_epochs(self) -> int | None:
        """Those that the recipe asks for."""
        epochs = self.recipe.get("epoch_size")
        return epochs if isinstance(epochs, int) else None

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return number(self.metrics.last.get("epoch")) or 0.0

    @property
    def step(self) -> int:
        """The step of the last line, or of the newest checkpoint if that has none."""
        return self.metrics.last.get("step", 0)

    @cached_property
    def metric(self) -> str | None:
        """The name of the number that chooses the best checkpoint; larger is better. None: nothing is measured."""
        named = self.state.get("metric")
        return named if isinstance(named, str) else self._metric_of_checkpoint()

    @cached_property
    def values(self) -> list[tuple[int, float]]:
        """(step, `metric`) of every evaluation."""
        found = [(line["step"], number(line.get(self.metric))) for line in self.val_lines if self.metric]
        return [(step, value) for step, value in found if value is not None]

    @property
    def best(self) -> float | None:
        """The largest value of `metric`."""
        return self._best[1]

    @property
    def best_step(self) -> int | None:
        """The first step with this value."""
        return self._best[0]

    @cached_property
    def _best(self) -> tuple[int | None, float | None]:
        return max(self.values, key=lambda item: item[1], default=(None, None))

    @property
    def best_epoch(self) -> int | None:
        epochs = {line["step"]: number(line.get("epoch")) for line in self.val_lines}
        epoch = epochs.get(self.best_step or -1)
        return None if epoch is None else round(epoch)

    @property
    def last(self) -> float | None:
        """`metric` of the last evaluation."""
        return self.values[-1][1] if self.values else None

    # -- time and size ----------------------------------------------------------------------------------------------

    @property
    def num_sessions(self) -> int:
        """How often the run was started or continued."""
        return len(sessions_in(self.state)) or 1

    @property
    def seconds(self) -> float | None:
        """Of training, over all sessions. Without word of them: between the first and the last line."""
        last = number(self.metrics.last.get("time"))
        if sessions := sessions_in(self.state):
            end = time.time() if self.user else last or 0.0
            return sum(seconds_of(session, end) for session in sessions)
        first = number(self.metrics.first.get("time"))
        return None if first is None or last is None else max(0.0, last - first)

    @property
    def last_seen(self) -> float:
        """When the run last wrote something, in seconds since 1970."""
        said = [number(self.metrics.last.get("time")), self._status_time()]
        return max(filter(None, said), default=_changed(self.path))  # a copy has other times, but says the same

    @cached_property
    def num_bytes(self) -> int:
        """On disk. Checkpoints may share files, which count once."""
        return sum({(s.st_dev, s.st_ino): s.st_size for s in _files(self.path)}.values())

    # -- the recipe it came from ------------------------------------------------------------------------------------

    @property
    def shipped(self) -> str | None:
        """The shipped recipe with the name of this run's recipe."""
        return self.recipe_name if self.recipe_name in shipped_recipes() else None

    def differs_from_shipped(self) -> dict[str, tuple[Any, Any]]:
        """Key -> (value of the shipped recipe, or of the schema if it came from none; value of this run)."""
        from vitcli.recipe.load import load_recipe  # takes a moment

        before = load_recipe(self.shipped).flat()
        keys = [key for key in before if key in self.recipe and key not in PLACES]
        return {key: (before[key], self.recipe[key]) for key in keys if before[key] != self.recipe[key]}

    # -- below ------------------------------------------------------------------------------------------------------

    def _read(self, name: str, read: Callable[[Path], Value], otherwise: Value) -> Value:
        path = self.path / name
        if not path.is_file():
            if path.exists() or name != "metrics.jsonl":  # a run that was just started has logged nothing
                self._notes.append(f"{name} is missing" if not path.exists() else f"{name} is not a file")
            return otherwise
        try:
            return read(path)
        except RecipeError as error:
            self._notes.append(f"{name} cannot be read ({error.problems[0].message})")
        except DataError as error:
            self._notes.append(error.message.replace(f"{self.path}{os.sep}", ""))
        except OSError as error:
            self._notes.append(f"{name} cannot be read ({error.strerror})")
        return otherwise

    def _metric_of_checkpoint(self) -> str | None:
        """The number of the evaluations that the newest checkpoint has as the primary one."""
        for folder in checkpoints(self.path):
            with suppress(DataError, KeyError, TypeError, ValueError, AttributeError):
                primary = {int(step): value for step, value in read_json(folder / STATE)["progress"]["primary"].items()}
                lines = [line for line in self.val_lines if line["step"] in primary]
                names = [name for line in lines for name in line if line[name] == primary[line["step"]]]
                return next((name for name in names if name not in ("step", "epoch")), None)
        return None

    def _status_time(self) -> float | None:
        with suppress(TypeError, ValueError, OverflowError):
            return time.mktime(time.strptime(self.state["time"], "%Y-%m-%dT%H:%M:%S")) if "time" in self.state else None
        return None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Of all files below, without following links."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif stat.S_ISREG((status := entry.stat(follow_symlinks=False)).st_mode):
                    yield status
