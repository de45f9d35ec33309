"""A run that is restarted with another number of processes is the run that was not."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_resume import metrics
from tests.support.commands import options

NORM_FREE = Path(__file__).with_name("norm_free.py")
#: 3 epochs of 4 steps; 12 images are 3 for each of 4 processes and 4 for each of 3
KEYS = {
    "epoch_size": 3, "num_samples": 48, "log_interval": 1, "global_batch_size": 12,
    "ema": True, "ema_ramp_steps": 5, "clip_grad": True, "clip_value": 0.5, "model": "norm_free",
}  # fmt: skip


@pytest.mark.slow
def test_four_then_three_then_four(tmp_path: Path, torchrun, vitcli):
    """An epoch each on 4, 3 and 4 processes, with shards and at last replicas: the steps of one process alone."""
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, *options(KEYS), "--run_dir"]
    one = vitcli(*words, "one", "--batch_size", 12)
    assert one.returncode == 0, one.stderr
    changing = [*words, "many", "--resume", "auto"]
    for epoch, (num_ranks, parallel) in enumerate([(4, "fsdp"), (3, "fsdp"), (4, "ddp")], start=1):
        done = torchrun(num_ranks, "vitcli", *changing, "--batch_size", 12 // num_ranks, "--parallel", parallel)
        assert done.returncode == 0, done.stderr
        assert f"{12 // num_ranks} x {num_ranks} processes" in done.stdout
        if epoch > 1:
            assert f"continuing at step {4 * (epoch - 1)}" in done.stdout
        for later in range(epoch + 1, 4):  # as if the machine had been lost after this epoch
            shutil.rmtree(tmp_path / "many" / "checkpoints" / f"step-{4 * later:08d}", ignore_errors=True)
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "many"), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (value if name == "kind" else pytest.approx(value, rel=2e-5)), (name, a, b)
    last = [tmp_path / run / "checkpoints" / "step-00000012" for run in ("one", "many")]
    states = [json.loads((folder / "state.json").read_text()) for folder in last]
    assert [state["global_batch"] for state in states] == [12, 12]
    one_average, other_average = (load_file(folder / "ema.safetensors") for folder in last)
    for name, value in one_average.items():
        assert (value - other_average[name]).abs().max() < 1e-5, name
