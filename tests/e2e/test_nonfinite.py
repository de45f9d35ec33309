"""A step that is not finite, as a user meets it: the message, going on without it, and two processes that agree."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_distributed import BASE, NORM_FREE
from tests.e2e.test_resume import metrics
from tests.support.commands import options

PLUGIN = Path(__file__).with_name("infinite_loss.py")
RUN = ["train", "-c", "quickstart", "--plugin", PLUGIN, "--task", "infinite_loss"]


def listed(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "nonfinite.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_stopped_run_goes_on_with_skip(tmp_path: Path, vitcli):
    """The step ends the run with code 5; a resume repeats that to the bit; `skip` gets past it and ends like a run
    that skipped from the start."""
    keys = options(
        {
            "num_samples": 64,
            "batch_size": 16,
            "epoch_size": 2,
            "ckpt_save_steps": 1,
            "log_interval": 8,
            "val_interval": 2,
        }
    )
    stopped = vitcli(*RUN, *keys, "--run_dir", "run")
    assert stopped.returncode == 5, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "--on_nonfinite skip" in stopped.stderr
    [line] = listed(tmp_path / "run")
    assert line["action"] == "stop"
    assert line["images"][0].startswith("digits/train[")
    assert f"in step {line['step']} ('{line['images'][0]}', " in stopped.stderr
    assert len(line["images"]) == 16
    resume = ["train", "--plugin", PLUGIN, "--resume", "run"]
    again = vitcli(*resume)
    assert again.returncode == 5, again.stderr
    assert listed(tmp_path / "run") == [line]
    done = vitcli(*resume, "--on_nonfinite", "skip")
    assert done.returncode == 0, done.stderr
    assert "skipped steps" in done.stdout
    assert f"in step {line['step']} " in done.stdout
    whole = vitcli(*RUN, *keys, "--on_nonfinite", "skip", "--run_dir", "whole")
    assert whole.returncode == 0, whole.stderr
    assert [entry["action"] for entry in listed(tmp_path / "run")] == ["skip", "skip"], "once per epoch"
    assert listed(tmp_path / "run") == listed(tmp_path / "whole")
    for name in ("model", "optimizer"):
        ends = [tmp_path / run / "checkpoints/step-00000008" / f"{name}.safetensors" for run in ("run", "whole")]
        assert ends[0].read_bytes() == ends[1].read_bytes()
    assert metrics(tmp_path / "whole")[-2]["skipped_steps"] == 2


@pytest.mark.slow
def test_two_processes_agree_on_what_only_one_sees(tmp_path: Path, torchrun, vitcli):
    """Gradients are finite everywhere and the loss is infinite on one rank: if the others did not know of it, they
    would update their weights, and differ from one process with two micro-steps."""
    keys = options(BASE | {"batch_size": 16, "model": "norm_free", "on_nonfinite": "skip", "opt": "sgd"})
    words = [*RUN, "--plugin", NORM_FREE, *keys, "--run_dir"]
    two = torchrun(2, "vitcli", *words, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    one = vitcli(*words, tmp_path / "one")
    assert one.returncode == 0, one.stderr
    skipped = listed(tmp_path / "two")
    assert len(skipped) == 2
    assert skipped == listed(tmp_path / "one")
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert b.pop("kind") == a.pop("kind")
        assert b == pytest.approx(a, rel=2e-5)
    weights = [load_file(tmp_path / run / "checkpoints/step-00000012/model.safetensors") for run in ("one", "two")]
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-5, name
