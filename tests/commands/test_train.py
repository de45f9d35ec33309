"""`vitcli train` in this process: how a run that fails ends."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitcli.commands import train as train_command
from vitcli.errors import LostContact
from vitcli.recipe.load import load_recipe


def test_a_signal_after_the_error_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torchrun sends SIGTERM to the ranks that are left, at any time: here while the lost one is being looked for."""

    @contextmanager
    def lost(*facts: object) -> Iterator[None]:
        yield
        os.kill(os.getpid(), signal.SIGTERM)
        raise LostContact("rank 1 of the run died")

    def killed(number: int, frame: object) -> None:
        raise AssertionError("the signal ended the process")

    monkeypatch.setattr(train_command, "failures_in_words", lost)
    before = signal.signal(signal.SIGTERM, killed)
    recipe = load_recipe(
        None,
        dataset="synthetic", num_samples=32, image_resize=32, batch_size=16, epoch_size=1, model="vit_ti_patch16",
        num_parallel_workers=0, val_while_train=False, run_dir=str(tmp_path / "run"), amp="off",
    )  # fmt: skip
    try:
        with pytest.raises(LostContact):
            train_command.train(recipe)
    finally:
        signal.signal(signal.SIGTERM, before)
    facts = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (facts["status"], facts["exit_code"]) == ("interrupted", 75)
