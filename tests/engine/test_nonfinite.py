"""A step that is not finite: it ends the run, or is left out so that no bit shows that it was there."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from vitcli.data.batch import Batch
from vitcli.engine.loop import fit
from vitcli.engine.nonfinite import MAX_SKIPPED_IN_A_ROW
from vitcli.engine.resume import ResumePoint
from vitcli.engine.saving import save, settle
from vitcli.engine.signals import StopFlag
from vitcli.engine.state import optimizer_tensors, restore
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DivergedError
from vitcli.weights.json_file import read_json


def poison(training: Training, *steps: int, value: float = math.inf) -> Training:
    """Images of `value` in these steps, counted from 1."""
    prepare = training.task.prepare

    def poisoned(batch: Batch, seed: int) -> Batch:
        if batch.step + 1 in steps:
            return replace(batch, views=(torch.full_like(batch.images, value, dtype=torch.float32),))
        return prepare(batch, seed)

    training.task.prepare = poisoned  # type: ignore[method-assign]
    return training


def bits(training: Training) -> dict[str, bytes]:
    """All that training changes."""
    tensors = training.task.state_dict() | optimizer_tensors(training.optimizer, training.task)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def lines(training: Training) -> list[dict]:
    file = training.run_dir / "nonfinite.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def images_of(training: Training, step: int) -> list[str]:
    """The images of `step`, by running the loader once more."""
    [batch] = [batch for batch in training.batches(start_step=step - 1) if batch.step == step - 1]
    return [training.nonfinite.images.name(index) for index in batch.indices.tolist()]


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lamb", "muon"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_skipped_step_changes_no_bit(make, opt: str, value: float):
    """Weights, moments, and BatchNorm's statistics, which are infinite after the forward pass."""
    training = poison(make(opt=opt, on_nonfinite="skip", norm=True), 3, value=value)
    batches = iter(training.batches(start_step=0))
    for _ in range(2):
        train_step(training, batches)
    before = bits(training)
    train_step(training, batches)
    assert bits(training) == before
    train_step(training, batches)
    assert bits(training) != before


def test_skipped_steps_are_counted_listed_and_left_out_of_the_means(make):
    training = poison(make(on_nonfinite="skip", log_interval=4, norm=True), 3)
    fit(training, StopFlag())
    assert training.nonfinite.skipped == 1
    assert lines(training) == [{"step": 3, "action": "skip", "images": images_of(training, 3)}]
    clean = make(norm=True)
    losses, batches = [], iter(clean.batches(start_step=0))
    for step in range(4):
        if step == 2:
            clean.progress.step = 3
            next(batches)
            continue
        train_step(clean, batches)
        losses.append(clean.meter.sums["loss"].item())
        clean.meter.reset()
    fit_again = poison(make(on_nonfinite="skip", norm=True), 3)
    batches = iter(fit_again.batches(start_step=0))
    for _ in range(4):
        train_step(fit_again, batches)
    fit_again.meter.steps -= len(fit_again.nonfinite.look(4, is_main=False))
    assert fit_again.meter.means()["loss"] == pytest.approx(sum(losses) / 3)
    assert bits(fit_again) == bits(clean), "bitwise a run without this step"


def test_stop_names_the_step_and_its_images(make):
    training = poison(make(log_interval=4), 2)
    with pytest.raises(DivergedError, match="in step 2 ") as error:
        fit(training, StopFlag())
    first = images_of(training, 2)[0]
    assert repr(first) in error.value.message
    assert "--on_nonfinite skip" in str(error.value.help)
    assert lines(training) == [{"step": 2, "action": "stop", "images": images_of(training, 2)}]


def test_a_resume_with_skip_gets_past_the_step_that_stopped(make):
    """And ends in the same bits as a run that skipped from the start."""
    whole = poison(make(on_nonfinite="skip", norm=True), 3)
    fit(whole, StopFlag())
    whole_lines = lines(whole)
    (whole.run_dir / "nonfinite.jsonl").unlink()
    stopped = poison(make(norm=True), 3)
    batches = iter(stopped.batches(start_step=0))
    train_step(stopped, batches)
    save(stopped)
    settle(stopped)
    with pytest.raises(DivergedError):
        fit(stopped, StopFlag())
    folder = stopped.run_dir / "checkpoints" / "step-00000001"
    again = poison(make(on_nonfinite="skip", norm=True), 3)
    restore(again, ResumePoint(folder, read_json(folder / "state.json")))
    fit(again, StopFlag())
    assert bits(again) == bits(whole)
    assert lines(again) == whole_lines, "the line of the first attempt went"


def test_counts_are_part_of_a_checkpoint(make):
    training = poison(make(on_nonfinite="skip", log_interval=1), 2, 3)
    batches = iter(training.batches(start_step=0))
    for step in range(3):
        train_step(training, batches)
        training.nonfinite.look(step + 1, is_main=True)
    save(training)
    settle(training)
    again = make(on_nonfinite="skip")
    folder = training.run_dir / "checkpoints" / "step-00000003"
    restore(again, ResumePoint(folder, read_json(folder / "state.json")))
    assert (again.nonfinite.skipped, again.nonfinite.skipped_in_a_row) == (2, 2)


@pytest.mark.parametrize("interval", [1, 40])
def test_many_in_a_row_end_the_run(make, interval: int):
    """However often the host looks."""
    training = poison(make(on_nonfinite="skip", log_interval=interval, epoch_size=10), *range(5, 41))
    last = 4 + MAX_SKIPPED_IN_A_ROW
    with pytest.raises(DivergedError, match=f"in each of the steps 5 to {last}"):
        fit(training, StopFlag())
    assert training.progress.step >= last


def test_no_checkpoint_with_an_infinite_moment(make):
    training = make(opt="adamw")
    train_step(training, iter(training.batches(start_step=0)))
    next(iter(training.optimizer.state.values()))["exp_avg_sq"].fill_(math.inf)
    save(training)
    with pytest.raises(DivergedError, match=r"exp_avg_sq/network\.0\.weight is not finite"):
        settle(training)
    assert not list(training.run_dir.rglob("step-*"))


def test_every_checkpoint_of_a_run_that_skips_is_finite(make):
    training = poison(make(on_nonfinite="skip", ckpt_save_steps=1, log_interval=50, ema=True, norm=True), 2, 3, 6)
    fit(training, StopFlag())
    files = list(training.run_dir.rglob("*.safetensors"))
    assert len(files) >= 8
    for file in files:
        for name, tensor in load_file(file).items():
            assert tensor.isfinite().all(), (file, name)


def test_the_host_never_asks_between_two_looks(make, monkeypatch: pytest.MonkeyPatch):
    training = poison(make(on_nonfinite="skip", norm=True), 2)
    batches, asked = iter([*training.batches(start_step=0)]), []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *_, name=name: asked.append(name) or 0)
    for _ in range(3):
        train_step(training, batches)
    monkeypatch.undo()
    assert asked == []
