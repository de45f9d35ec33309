"""Trackio, through its own client: a database on this machine, in TRACKIO_DIR. `trackio show` displays it."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcli.sinks.sink import RunFacts, Sink


class Trackio(Sink):
    """A resumed run continues the same run there."""

    package = "trackio"

    def __init__(self, facts: RunFacts) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self._trackio: Any = importlib.import_module("trackio")
        self.name = facts.known_as or facts.run_dir.name
        self._run: Any = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "vitcli"),
            name=self.name,
            config=dict(facts.recipe),
            resume="allow",
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._run.log({name: self._trackio.Image(pixels)}, step=step)

    def close(self, exit_code: int) -> None:
        self._run.finish()
