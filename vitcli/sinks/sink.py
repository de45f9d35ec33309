"""What a sink is, and how those of a run are opened, fed and closed so that none of them can end a training."""

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image

from vitcli import catalog
from vitcli.disk import Faults, write_whole
from vitcli.errors import UsageError, VitcliError

#: in the folder of a run: sink -> its own name for the run, so that a resumed run continues there
NAMES = "sinks.json"


@dataclass(frozen=True)
class RunFacts:
    """What a sink is told of a run when it is opened."""

    run_dir: Path
    recipe: Mapping[str, Any]  #: key -> value
    step: int  #: 0, or where a resumed run continues
    faults: Faults  #: of the disk, for sinks that write into `run_dir`
    known_as: str | None  #: what `name` was when this run was opened before


class Sink(Protocol):
    """Built as `catalog.load("sinks", name)(facts)`, on rank 0 only."""

    package: str  #: what must be installed
    name: str | None  #: by which the run is found again; None: it needs none

    def __init__(self, facts: RunFacts) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as train/loss."""
        ...

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """pixels: (H, W, 3) uint8."""
        ...

    def close(self, exit_code: int) -> None:
        """The run has ended, with this exit code of `errors.py`."""
        ...


def check_sinks(names: Sequence[str], *, chosen: bool) -> None:
    """UsageError if the package of a sink is not installed; the default sink may be missing.

    chosen: whether the user names them.
    """
    for name in names:
        package = catalog.load("sinks", name).package
        if chosen and importlib.util.find_spec(package.partition(".")[0]) is None:
            raise UsageError(f"`sinks: {name}` needs the package {package}", help=f"pip install {package}")


class Sinks:
    """The sinks of a run. One that fails is reported once and gets nothing more: metrics.jsonl has everything.

    Args:
        names: of the sinks.
        report: takes a sentence about a sink that failed.
    """

    def __init__(
        self,
        names: Sequence[str],
        run_dir: Path,
        recipe: Mapping[str, Any],
        step: int,
        faults: Faults,
        report: Callable[[str], None],
    ) -> None:
        self._report = report
        self._open: dict[str, Sink] = {}
        known = _known_names(run_dir / NAMES)
        for name in names:
            facts = RunFacts(run_dir, recipe, step, faults, known.get(name))
            with suppress(ImportError):  # the default one may be missing: `check_sinks` has refused any other
                self._guarded(name, partial(self._add, name, facts))
        if found := {name: sink.name for name, sink in self._open.items() if sink.name}:
            with suppress(VitcliError):  # a disk that refuses is noticed by what is more important
                write_whole(run_dir / NAMES, json.dumps(known | found, indent=2) + "\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda sink: sink.scalars(step, values))

    def picture(self, step: int, name: str, page: Image) -> None:
        pixels = np.asarray(page.convert("RGB"))
        self._tell(lambda sink: sink.picture(step, name, pixels))

    def close(self, exit_code: int) -> None:
        self._tell(lambda sink: sink.close(exit_code))
        self._open = {}

    def _add(self, name: str, facts: RunFacts) -> None:
        self._open[name] = catalog.load("sinks", name)(facts)

    def _tell(self, tell: Callable[[Sink], None]) -> None:
        for name, sink in list(self._open.items()):
            self._guarded(name, lambda sink=sink: tell(sink))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Whatever a client raises is a reason to go on without it: a server that is away must not cost a training."""
        try:
            call()
        except ImportError:
            raise
        except Exception as error:
            self._open.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._report(f"{name} failed and gets nothing more of this run: {reason}")


def _known_names(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
