"""Commands with low-bit moments: what is printed, resumed, refused, and the same on two processes."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_distributed import BASE, NORM_FREE
from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import SMALL, options


@pytest.mark.slow
def test_resumes_exactly_and_with_the_same_optimizer_only(tmp_path: Path, vitcli):
    keys = options(SMALL | {"num_samples": 32, "opt": "adamw_8bit"})
    done = vitcli("train", "-c", "quickstart", *keys, "--run_dir", "whole")
    assert done.returncode == 0, done.stderr
    assert "94.2 % of the parameters have moments of 8 bits; the moments take 7.8 MB instead of 26.1 MB" in done.stdout
    whole = tmp_path / "whole"
    assert (whole / "checkpoints/step-00000004/optimizer.safetensors").stat().st_size < 8e6
    run = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    for other in ("adamw", "adamw_4bit"):
        refused = vitcli("train", "--resume", run, "--opt", other)
        assert refused.returncode == 4
        assert f"adamw_8bit -> {other}" in refused.stderr
        assert "Traceback" not in refused.stderr
    again = vitcli("train", "--resume", run)
    assert again.returncode == 0, again.stderr
    assert "continuing at step 2" in again.stdout
    assert final_bytes(run) == final_bytes(whole)
    assert metrics(run)[-1] == metrics(whole)[-1]


def test_a_misspelled_one_is_explained(vitcli):
    done = vitcli("train", "-c", "quickstart", "--opt", "adamw8bit")
    assert done.returncode == 2
    assert "`adamw_8bit`" in done.stderr, done.stderr


@pytest.mark.slow
def test_two_processes_equal_one_with_accumulation(tmp_path: Path, torchrun, vitcli):
    """Up to the rounding of the moments: a code may fall on the other side of a threshold."""
    keys = options(BASE | {"batch_size": 16, "model": "norm_free", "opt": "adamw_8bit"})
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, *keys, "--run_dir"]
    two = torchrun(2, "vitcli", *words, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    one = vitcli(*words, tmp_path / "one")
    assert one.returncode == 0, one.stderr
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() & {"loss", "nll"}:
            assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a, b)
    folders = [tmp_path / run / "checkpoints/step-00000012" for run in ("one", "two")]
    assert "exp_avg.codes/network.4.weight" in load_file(folders[0] / "optimizer.safetensors")
    weights = [load_file(folder / "ema.safetensors") for folder in folders]
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-3, name
