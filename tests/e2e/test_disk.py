"""What a run does when its disk is full, read-only, limited or gone: a defined end, and nothing half-written."""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.commands import options

#: checkpoints of 0.4 MiB, one after each of the 16 steps
TINY = {
    "dataset": "digits", "num_samples": 64, "model": "vit_ti_patch16", "embed_dim": 32, "num_heads": 2, "depth": 2,
    "patch_size": 8, "image_resize": 16, "batch_size": 8, "epoch_size": 2, "log_interval": 1, "ckpt_save_steps": 1,
    "num_parallel_workers": 0, "keep_checkpoint_max": 1, "device": "cpu", "run_dir": "run",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str
    files: list[str]
    status: dict | None
    metrics: list[dict]

    @property
    def checkpoints(self) -> list[str]:
        return [name for name in self.files if re.fullmatch(r"run/checkpoints/[^/]*", name)]


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., Outcome]:
    """Train TINY on a disk of a size, with events at steps."""

    def train(size: str, events: str, **keys: object) -> Outcome:
        (tmp_path / "disk").mkdir()
        words = ["train", *options(TINY | keys)]
        command = commands.python_m("tests.support.small_disk", tmp_path / "disk", size, events, *words)
        done = commands.finished(command, cwd=commands.ROOT, timeout=120)
        if "no small disk here" in done.stderr:
            pytest.skip(done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        found = json.loads(lines[-1])
        metrics = [json.loads(line) for line in found["metrics"]]
        return Outcome(done.returncode, done.stdout, done.stderr, found["files"], found["status"], metrics)

    return train


pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")]


def test_full_before_the_first_step(on_disk):
    """A disk of one page: an error in words, and nothing that looks like a run."""
    done = on_disk("4k", "-")
    assert done.code == 74, done.stderr
    assert "the disk is full" in done.stderr
    assert done.files in ([], ["run"])


def test_full_at_a_checkpoint(on_disk):
    done = on_disk("20m", "5:fill")
    assert done.code == 74, done.stderr
    assert re.search(r"the disk is full: .* cannot be written to run", done.stderr)
    assert "vitcli train --resume run" in done.stderr
    assert "run/checkpoints/step-00000005" in done.checkpoints
    assert all(re.fullmatch(r"run/checkpoints/step-\d{8}", name) for name in done.checkpoints)


def test_full_and_free_again_with_warn(on_disk):
    """Training goes on; what could not be written of metrics.jsonl is written later, in order, each line once."""
    done = on_disk("20m", "3:fill,6:free", on_save_error="warn")
    assert done.code == 0, done.stderr
    assert "the disk is full: checkpoint 4 cannot be written" in done.stdout
    assert "on_save_error is warn" in done.stdout
    assert done.status is not None
    assert done.status["status"] == "done"
    assert [line["step"] for line in done.metrics if line["kind"] == "train"] == list(range(1, 17))
    assert "run/checkpoints/step-00000016" in done.checkpoints


def test_the_last_checkpoint_must_be_written(on_disk):
    """Also with warn: a run that ends without what it trained is not done."""
    done = on_disk("20m", "12:fill", on_save_error="warn")
    assert done.code == 74, done.stderr
    assert "the disk is full: checkpoint 16 cannot be written" in done.stderr
    assert "run/checkpoints/step-00000012" in done.checkpoints


def test_read_only_in_the_middle(on_disk):
    """status.json cannot be changed either; the error that is shown is the first one."""
    done = on_disk("20m", "3:read_only")
    assert done.code == 74, done.stderr
    assert "the file system is read-only" in done.stderr
    assert "status.json still says `running`" in done.stdout
    assert "run/checkpoints/step-00000003" in done.checkpoints


def test_limit_on_the_size_of_files(on_disk):
    done = on_disk("20m", "3:limit")
    assert done.code == 74, done.stderr
    assert "(ulimit -f): checkpoint 4 cannot be written to run (it needs 0.4 MiB)" in done.stderr
    assert done.status is not None
    assert done.status["exit_code"] == 74


@pytest.mark.parametrize("policy", ["stop", "warn"])
def test_deleted_in_the_middle(on_disk, policy: str):
    """Nothing of the folder is made again."""
    done = on_disk("20m", "3:delete", on_save_error=policy)
    assert done.code == 74, done.stderr
    assert "run is gone: it was deleted or moved" in done.stderr
    assert done.files == []


@pytest.mark.parametrize("kind", ["file", "no_folder", "long"])
def test_where_no_run_can_be(tmp_path: Path, vitcli, kind: str):
    """Refused before the data is read: the folders of images are empty, too."""
    for split in ("train", "val"):
        (tmp_path / "empty" / split / "cat").mkdir(parents=True)
    place = {"file": tmp_path / "file" / "run", "no_folder": Path("/proc/run"), "long": tmp_path / ("x" * 300)}[kind]
    (tmp_path / "file").write_text("")
    done = vitcli(
        "train", *options(TINY | {"run_dir": place, "dataset": "imagefolder", "data_dir": tmp_path / "empty"})
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write to" in done.stderr
    assert "--run_dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_with_spaces(tmp_path: Path, vitcli):
    done = vitcli("train", *options(TINY | {"epoch_size": 1, "run_dir": tmp_path / "my runs" / ("y" * 200)}))
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "my runs")
