"""Weights & Biases, through its own client. Without an account it writes into the run's folder: `wandb sync` later.

WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the like mean what they always mean; the default project is `vitcli`.
"""

import netrc
import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcli.sinks.sink import RunFacts, Sink


class Wandb(Sink):
    """A resumed run continues the same run there."""

    package = "wandb"

    def __init__(self, facts: RunFacts) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb: Any = wandb
        self.name = facts.known_as or secrets.token_hex(4)
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vitcli"),
            id=self.name,
            name=facts.run_dir.name,
            dir=facts.run_dir,
            config=dict(facts.recipe),
            resume="allow",
            mode=mode,
            # no copy of the user's code, no console output, no machine statistics are sent
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, save_code=False),
        )
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)


def has_account() -> bool:
    """Whether wandb could log in without asking: it would wait for an answer in the middle of a job."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)
