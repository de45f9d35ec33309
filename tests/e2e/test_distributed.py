"""Two torchrun processes over gloo: the same samples, the same losses, exact counts, and a defined end."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_resume import metrics
from tests.support.commands import SMALL, environment, options

NORM_FREE = Path(__file__).with_name("norm_free.py")
BASE = {
    "epoch_size": 2, "num_samples": 192, "log_interval": 1, "mixup": 0.8, "re_prob": 0.25, "global_batch_size": 32,
    "ema": True, "ema_ramp_steps": 5, "label_smoothing": 0.1, "clip_grad": True, "clip_value": 0.5,
}  # fmt: skip


@pytest.mark.slow
def test_two_processes_equal_one_with_accumulation(tmp_path: Path, torchrun, vitcli):
    """Without BatchNorm the batch's split over ranks or micro-steps must not matter, up to rounding."""
    keys = options(BASE | {"batch_size": 16, "model": "norm_free"})
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, *keys, "--run_dir"]
    two = torchrun(2, "vitcli", *words, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    one = vitcli(*words, tmp_path / "one")
    assert one.returncode == 0, one.stderr
    assert "16 x 2 micro-steps" in one.stdout
    assert "16 x 2 processes" in two.stdout
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (value if name == "kind" else pytest.approx(value, rel=2e-5)), (name, a, b)
    weights = [load_file(tmp_path / run / "checkpoints/step-00000012/ema.safetensors") for run in ("one", "two")]
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-5, name


@pytest.mark.slow
def test_fastvit_counts_ragged_shares(tmp_path: Path, torchrun, vitcli):
    """355 validation images over two ranks: counted once each; the checkpoint validates to the same counts alone."""
    keys = SMALL | {"epoch_size": 1, "batch_size": 8, "num_samples": 32}
    words = ["train", "-c", "quickstart", "--run_dir", "run", *options(keys)]
    done = torchrun(2, "vitcli", *words)
    assert done.returncode == 0, done.stderr
    top1 = metrics(tmp_path / "run")[-1]["top1"]
    assert vitcli("validate", "--ckpt_path", "run", "--json", "one.json").returncode == 0
    two = torchrun(2, "vitcli", "validate", "--ckpt_path", "run", "--json", "two.json", "--val_batch_size", 7)
    assert two.returncode == 0, two.stderr
    one_json, two_json = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one_json["num_images"] == two_json["num_images"] == 355
    assert one_json["correct1"] == two_json["correct1"]
    assert one_json["top1"] == top1
    assert one_json["nll"] == pytest.approx(two_json["nll"], rel=1e-5)


@pytest.mark.slow
def test_crops_count_ragged_shares(tmp_path: Path, torchrun, vitcli):
    """The same by five crops of each image; the single crop is reported too."""
    keys = options({"model": "norm_free", "num_samples": 32, "batch_size": 16, "epoch_size": 1})
    assert vitcli("train", "-c", "quickstart", "--plugin", NORM_FREE, *keys, "--run_dir", "run").returncode == 0
    correct = round(metrics(tmp_path / "run")[-1]["top1"] * 355 / 100)
    words = ["validate", "--plugin", NORM_FREE, "--ckpt_path", "run", "--eval_crops", 5, "--crop_scales", "1.2"]
    crops = vitcli(*words, "--json", "one.json", "--val_batch_size", 40)
    assert crops.returncode == 0, crops.stderr
    assert "355, each by the mean probability of 5 crops (scale 1.2)" in crops.stdout
    assert "single crop" in crops.stdout
    two = torchrun(2, "vitcli", *words, "--json", "two.json", "--val_batch_size", 64)
    assert two.returncode == 0, two.stderr
    one_crops, two_crops = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one_crops["single_crop"]["correct1"] == two_crops["single_crop"]["correct1"] == correct
    assert one_crops["num_images"] == two_crops["num_images"] == 355
    assert one_crops["correct5"] == two_crops["correct5"]
    assert one_crops["nll"] == pytest.approx(two_crops["nll"], rel=1e-5)


@pytest.mark.slow
def test_sigterm_to_one_rank_stops_both(tmp_path: Path, vitcli):
    """One rank is told to stop; both save the same step, and the run goes on with one process afterwards."""
    run = tmp_path / "run"
    keys = SMALL | {"log_interval": 1, "batch_size": 8, "num_samples": 64}
    words = ["train", "-c", "quickstart", "--run_dir", run, *options(keys)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "vitcli", *words]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("step 3 "):
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(children[-1]), signal.SIGTERM)
        errors = process.stderr.read()
    assert process.returncode != 0
    assert "stopped at step" in errors
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    assert len(list((run / "checkpoints").glob("step-*"))) == 1
    resumed = vitcli("train", "--resume", run, "--global_batch_size", 16)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "status.json").read_text())["step"] == 8


@pytest.mark.slow
def test_data_error_of_one_rank_is_the_runs(tmp_path: Path, torchrun, image_folder: Path):
    """Rank 1 meets an unreadable image in its third step: the run failed for that reason, it was not interrupted."""
    sixth = sorted((image_folder / "train" / "cat").iterdir())[5]
    sixth.write_bytes(b"no image")
    words = {"data_dir": image_folder, "image_resize": 64, "batch_size": 1, "shuffle": False, "epoch_size": 1}
    done = torchrun(2, "vitcli", "train", *options(words), "--run_dir", "run")
    assert done.returncode != 0
    assert "rank 1: cannot read the image" in done.stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "failed"
    assert status["exit_code"] == 3
    assert sixth.name in status["message"]
    state = json.loads((tmp_path / "run/checkpoints/step-00000002/state.json").read_text())
    assert state["meter"]["steps"] == 2, (
        "both ranks saved the steps before; rank 0 alone does not know the others' sums"
    )
    assert "step 2 is saved" in done.stderr


def test_distribute_contradicts_launch(tmp_path: Path, vitcli):
    said = vitcli("train", "-c", "quickstart", "--distribute", "False", WORLD_SIZE="8")
    assert said.returncode == 2
    assert "`distribute` is False, but torchrun started 8 processes" in said.stderr
    said = vitcli("train", "-c", "quickstart", "--distribute", "True")
    assert said.returncode == 2
    assert "only one process was started" in said.stderr
    assert "torchrun" in said.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_hanging_rank_ends_the_run(tmp_path: Path):
    """A rank that stops answering: the other gives up after the timeout instead of waiting for ever."""
    keys = {"model": "norm_free", "batch_size": 8, "log_interval": 1}
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, "--run_dir", tmp_path / "run", *options(keys)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def start(rank: int) -> subprocess.Popen:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, VITCLI_TIMEOUT_SECONDS="4", **place)
        command = [sys.executable, "-m", "vitcli", *map(str, words)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start(0) as first, start(1) as second:
        for line in first.stdout:
            if line.startswith("step 2 "):
                second.send_signal(signal.SIGSTOP)
                break
        _, errors = first.communicate(timeout=60)
        second.kill()
        second.communicate()
    assert first.returncode == 75
    assert "rank 1 of the run did not answer within 4 seconds" in errors
    assert "Traceback" not in errors
