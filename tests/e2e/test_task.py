"""A task and an evaluator from a user's file train, log, choose the best and resume bitwise: vitcli knows neither."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_resume import metrics
from tests.support.commands import environment, options

PLUGIN = Path(__file__).with_name("two_views.py")
WORDS = [
    "train", "--plugin", PLUGIN, "--task", "agreement",
    *options({
        "dataset": "digits", "model": "vit_ti_patch16", "patch_size": 8, "depth": 1, "num_heads": 2, "image_resize": 16,
        "num_samples": 128, "batch_size": 16, "epoch_size": 2, "log_interval": 1, "ckpt_save_steps": 1, "ema": True,
        "ema_ramp_steps": 4, "num_parallel_workers": 1, "opt": "adamw", "keep_checkpoint_max": 100,
    }),
]  # fmt: skip


def final(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / "step-00000016"
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


@pytest.mark.slow
def test_a_task_of_ones_own(tmp_path: Path, vitcli):
    whole = tmp_path / "whole"
    done = vitcli(*WORDS, "--run_dir", whole)
    assert done.returncode == 0, done.stderr
    assert "best spread" in done.stdout

    assert final(whole).keys() == {"model.safetensors", "task.safetensors", "ema.safetensors", "optimizer.safetensors"}
    first, last = (load_file(whole / "checkpoints" / f"step-{step:08d}" / "task.safetensors") for step in (1, 16))
    assert last.keys() == {"head.weight", "head.bias", "center", "num_steps"}
    assert last["num_steps"] == 16
    for name in ("head.weight", "center"):
        assert not last[name].equal(first[name]), f"{name} does not move"
    moments = load_file(whole / "checkpoints" / "step-00000016" / "optimizer.safetensors")
    assert moments["exp_avg/head.weight"].abs().max() > 0

    lines = metrics(whole)
    assert all(line["distance"] >= 0 for line in lines if line["kind"] == "train")
    spreads = {line["step"]: line["spread"] for line in lines if line["kind"] == "val"}
    progress = json.loads((whole / "checkpoints" / "step-00000016" / "state.json").read_text())["progress"]
    assert progress["best"] == max(spreads.values())
    best = max(spreads, key=lambda step: spreads[step])
    assert (whole / "checkpoints" / "best").resolve().name == f"step-{best:08d}"

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "vitcli", *map(str, WORDS), "--run_dir", str(killed)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 5 "):
                process.send_signal(signal.SIGKILL)
    shutil.rmtree(max((killed / "checkpoints").glob("step-*")))
    resumed = vitcli("train", "--plugin", PLUGIN, "--resume", killed, "--num_parallel_workers", 0)
    assert resumed.returncode == 0, resumed.stderr
    assert final(killed) == final(whole)
    assert metrics(killed) == metrics(whole)


def test_a_task_that_names_no_evaluator_is_not_measured_by_nothing(tmp_path: Path, vitcli):
    """`validate` asks for one instead of printing an empty table."""
    words = [*WORDS, "--epoch_size", "1", "--num_samples", "32", "--run_dir", "run"]
    assert vitcli(*words).returncode == 0
    done = vitcli("validate", "--plugin", PLUGIN, "--ckpt_path", "run")
    assert done.returncode == 2
    assert "`task: agreement` names no evaluator of the network alone" in done.stderr
    done = vitcli("validate", "--plugin", PLUGIN, "--ckpt_path", "run", "--evaluate", "spread")
    assert done.returncode == 0, done.stderr
