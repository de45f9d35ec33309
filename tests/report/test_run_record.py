"""A run folder says what the run was and how it went, whatever happened to its files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import environment
from tests.support.run_folders import START, lines, write_run
from vitcli.report.metrics_file import read_metrics
from vitcli.report.run_record import RunRecord

#: takes the lock of a folder, says so, and holds it until its standard input is closed
HOLD = """
import sys; from pathlib import Path; from vitcli.engine.run_lock import lock
lock(Path(sys.argv[1])); print(flush=True); sys.stdin.read()
"""


def test_what_was_logged(tmp_path: Path):
    run = RunRecord(write_run(tmp_path / "run", "finetune", seed=7))
    assert (run.name, run.recipe_name, run.shipped) == ("run", "finetune", "finetune")
    assert (run.status, run.epoch, run.num_epochs, run.step) == ("done", 3, 3, 12)
    assert (run.metric, run.best, run.best_step, run.best_epoch, run.last) == ("top1", 30.0, 8, 2, 20.0)
    assert [line["loss"] for line in run.train_lines] == [1, 1 / 2, 1 / 3]
    assert run.recipe["seed"] == 7
    assert run.data["class_names"] == ["cat", "dog"]
    assert run.notes == []


def test_equal_values_the_first_is_the_best(tmp_path: Path):
    assert RunRecord(write_run(tmp_path / "run", values=(5.0, 9.0, 9.0))).best_step == 8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "9", True])
def test_what_is_no_number_is_not_the_best(tmp_path: Path, value: object):
    run = RunRecord(write_run(tmp_path / "run", values=(5.0, value, 4.0)))
    assert (run.best, run.best_step, run.last) == (5.0, 4, 4.0)


def test_differs_from_the_shipped_recipe_or_from_the_defaults(tmp_path: Path):
    shipped = RunRecord(write_run(tmp_path / "a", "finetune", seed=7, lr=0.5))
    assert shipped.differs_from_shipped().keys() == {"seed", "lr", "epoch_size"}
    assert shipped.differs_from_shipped()["lr"][1] == 0.5
    own = RunRecord(write_run(tmp_path / "b", model="fvit", image_resize=32))
    assert own.shipped is None
    assert own.differs_from_shipped() == {
        "model": ("fastvit_t8", "fvit"), "image_resize": (224, 32), "epoch_size": (90, 3),
    }  # fmt: skip


def test_time_of_all_sessions(tmp_path: Path):
    """45 s that were counted, and a killed session from 100 s to the last line, which was written after 190 s."""
    sessions = [{"start": START, "seconds": 45.0}, {"start": START + 100}]
    run = RunRecord(write_run(tmp_path / "run", status={"status": "running", "sessions": sessions}))
    assert (run.status, run.num_sessions, run.seconds) == ("killed", 2, 45.0 + 90.0)


def test_time_without_word_of_sessions(tmp_path: Path):
    assert RunRecord(write_run(tmp_path / "run")).seconds == 130.0


def test_files_that_checkpoints_share_count_once(tmp_path: Path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(bytes(1000))
    (folder / "b").hardlink_to(folder / "a")
    (folder / "c").symlink_to(sys.executable)
    assert RunRecord(tmp_path / "run").num_bytes == 1000


def test_a_process_that_holds_the_lock_makes_it_running(tmp_path: Path):
    folder = write_run(tmp_path / "run", status={"status": "running"})
    assert RunRecord(folder).status == "killed"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        held = (folder / ".lock").read_text()
        for _ in range(2):  # asking does not change the answer
            assert RunRecord(folder).status == "running"
        assert RunRecord(folder).user == held == f"process {process.pid} on {os.uname().nodename}"
        process.stdin.close()
    assert RunRecord(folder).status == "killed"
    assert (folder / ".lock").read_text() == held


def test_cut_and_damaged_lines(tmp_path: Path):
    file = write_run(tmp_path / "run") / "metrics.jsonl"
    file.write_text(file.read_text().replace('"loss": 0.5', '"loss": 0.') + '{"kind": "train", "step": 13, "lo')
    run = RunRecord(file.parent)
    assert [line["step"] for line in run.train_lines] == [4, 12]
    assert (run.epoch, run.best, run.notes) == (3, 30.0, [])
    for damaged in ("[1]", '{"kind": "val"}', "[" * 100_000, "\x00\x00"):
        file.write_text(damaged + "\n" + file.read_text())
    assert RunRecord(file.parent).notes == ["metrics.jsonl: 5 lines cannot be read"]  # one of training
    assert RunRecord(file.parent).best == 30.0


def test_steps_that_were_done_again_count_once(tmp_path: Path):
    """The run was continued after step 4 and went another way."""
    file = tmp_path / "metrics.jsonl"
    first, again = lines((10.0, 30.0, 20.0)), lines((0.0, 11.0))[2:]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*first, *again]))
    metrics = read_metrics(file)
    assert [line["top1"] for line in metrics.val_lines] == [10.0, 11.0]
    assert [line["step"] for line in metrics.train_lines] == [4, 8]
    assert metrics.last["step"] == 8


def test_the_metric_of_a_run_whose_status_does_not_name_it(tmp_path: Path):
    folder = write_run(tmp_path / "run", status={"status": "running"})
    assert RunRecord(folder).metric is None
    checkpoint = folder / "checkpoints" / "step-00000012"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text(json.dumps({"progress": {"primary": {"4": 10.0, "8": 30.0, "12": 20.0}}}))
    assert (RunRecord(folder).metric, RunRecord(folder).best) == ("top1", 30.0)


@pytest.mark.parametrize("name", ["recipe.yaml", "env.json", "data.json", "status.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00{", b"[1, 2]", b'{"a": {"status": ["\x1b[2J"', "folder"])
def test_any_damaged_file(tmp_path: Path, name: str, content: bytes | str | None):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    if content == "folder":
        (folder / name).mkdir()
    elif isinstance(content, bytes):
        (folder / name).write_bytes(content)
    run = RunRecord(folder)
    empty_is_fine = name == "metrics.jsonl" and not content
    lone_line = name == "metrics.jsonl" and isinstance(content, bytes)  # cut by the end of its process
    empty_recipe = name == "recipe.yaml" and content == b""
    assert len(run.notes) == (0 if empty_is_fine or lone_line or empty_recipe else 1)
    facts = run.status, run.epoch, run.metric, run.best, run.last, run.seconds, run.num_bytes, run.last_seen
    assert facts[0] == ("unknown" if name == "status.json" else "done")
    assert run.differs_from_shipped() is not None


@pytest.mark.parametrize(
    "status",
    [
        {"status": 3, "sessions": 5, "metric": ["top1"], "time": 7},
        {"status": "done", "sessions": [1, {"start": "x"}, {"start": True}], "time": "yesterday"},
        {"status": "done", "sessions": [{"start": 1e300, "seconds": "x"}], "time": "9999-01-01T00:00:00"},
    ],
)
def test_values_of_another_type(tmp_path: Path, status: dict):
    run = RunRecord(write_run(tmp_path / "run", status=status))
    assert run.status in ("unknown", "done")
    assert run.seconds is not None
    assert run.num_sessions == 1
    assert run.last_seen
    assert run.best in (None, 30.0)


def test_no_torch():
    code = "import vitcli.report.run_record, vitcli.report.run_folders, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
