"""`vitcli runs`: what a user sees of runs, in any width, and that nothing but runs is removed."""

import io
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest

from tests.support.commands import run_here
from tests.support.run_folders import START, write_run
from tests.test_terminal import HOSTILE, obeyed
from vitcli.commands import runs_show
from vitcli.engine.run_lock import lock, unlock
from vitcli.report import run_list
from vitcli.weights.manifest import write_manifest

Said = Callable[..., list[str]]


class Clock:
    """An hour after the start of all runs."""

    @staticmethod
    def time() -> float:
        return START + 3600


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines that `vitcli …` prints below tmp_path, in a terminal of 140 characters; `code` is its exit code."""
    monkeypatch.chdir(tmp_path)
    for module in (run_list, runs_show):
        monkeypatch.setattr(module, "time", Clock)

    def run(*words: object, code: int = 0, width: int | None = 140) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width)) if width else monkeypatch.delenv("COLUMNS", raising=False)
        found = run_here(*words)
        out, err = capsys.readouterr()
        assert found == code, err
        return (err if code else out).splitlines()

    return run


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    """runs/ with a run that is done, and one that was killed in its second epoch."""
    folder = tmp_path / "runs"
    first = write_run(folder / "finetune-20231114-221320-0f6b", "finetune", data_dir="/photos")
    (first / "checkpoints" / "large").touch()
    os.truncate(first / "checkpoints" / "large", 12_340_000)
    killed = {"status": "running", "metric": "top1", "sessions": [{"start": START, "seconds": 3000}, {"start": START}]}
    second = write_run(folder / "own", values=(4.5,), model="fvit", image_resize=32, status=killed)
    recipe = second / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epoch_size: 1", "epoch_size: 100"))
    os.truncate(second / "env.json", 3_000_000_000)
    return folder


WIDE = """\
name                           recipe    model       status  epochs  best top1  at epoch  last top1      time     size       age
finetune-20231114-221320-0f6b  finetune  fastvit_t8  done       3/3      30.00         2      20.00   2.2 min  12.3 MB  56.8 min
own                            defaults  fvit        killed   1/100       4.50         1       4.50  51.2 min  3.00 GB  58.8 min
note: own: env.json cannot be read (more than 16 MiB)
"""  # noqa: E501
NARROW = """\
name                           model       status  epochs  best top1       age
finetune-20231114-221320-0f6b  fastvit_t8  done       3/3      30.00  56.8 min
own                            fvit        killed   1/100       4.50  58.8 min
note: own: env.json cannot be read (more than 16 MiB)
"""
TINY = """\
name                   status  best top1
finetune-2…21320-0f6b  done        30.00
own                    killed       4.50
note: own: env.json cannot be read (more than 16 MiB)
"""


@pytest.mark.parametrize(("width", "expected"), [(140, WIDE), (80, NARROW), (40, TINY), (None, WIDE)])
def test_ls(said: Said, two_runs: Path, width: int | None, expected: str):
    lines = said("runs", "ls", width=width)
    assert lines == expected.splitlines()
    assert width is None or max(map(len, lines[:3])) <= width


@pytest.mark.parametrize(
    ("order", "first"),
    [("age", "finetune"), ("name", "finetune"), ("best", "finetune"), ("time", "own"), ("size", "own")],
)
def test_ls_sorts(said: Said, two_runs: Path, order: str, first: str):
    assert said("runs", "ls", "--sort", order)[1].startswith(first)
    assert not said("runs", "ls", "--sort", order, "--reverse")[1].startswith(first)


def test_ls_of_runs_with_several_metrics(said: Said, two_runs: Path):
    write_run(two_runs / "experiment" / "other", status={"status": "failed", "metric": "nll"})
    (two_runs / "no_run").mkdir()
    rows = [line.split() for line in said("runs", "ls", "--sort", "name") if not line.startswith("note")]
    assert [row[0] for row in rows] == ["name", "experiment/other", "finetune-20231114-221320-0f6b", "own"]
    assert rows[0][5:7] == ["metric", "best"]
    assert rows[1][5:7] == ["nll", "1.00"]


def test_ls_without_runs(said: Said, tmp_path: Path):
    assert said("runs", "ls") == ["no runs in runs; start one: vitcli train -c RECIPE --data_dir DIR"]
    (tmp_path / "runs").mkdir()
    assert said("runs", "ls", "run", code=2) == ["error: there is no folder run", "help: did you mean runs?"]
    (tmp_path / "file").touch()
    assert said("runs", "ls", "file", code=2)[0] == "error: file is not a folder"


def test_json(said: Said, two_runs: Path, tmp_path: Path):
    said("runs", "ls", "--json", "all.json")
    first, second = json.loads((tmp_path / "all.json").read_text())
    assert (first["best"], first["best_step"], first["best_epoch"], first["last"]) == (30.0, 8, 2, 20.0)
    assert (second["status"], second["epoch"], second["num_epochs"], second["num_sessions"]) == ("killed", 1, 100, 2)
    assert said("runs", "ls", "--json", "no/folder/a.json", code=2)


def test_a_hostile_name_gives_no_orders(said: Said, two_runs: Path):
    (two_runs / "own").rename(two_runs / HOSTILE)
    for command in (["ls"], ["show", HOSTILE], ["compare", HOSTILE, "finetune-20231114-221320-0f6b"]):
        assert not obeyed("\n".join(said("runs", *command, width=None)))


def checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(2000))
    (folder / "state.json").write_text("{}")
    write_manifest(folder)
    return folder


def test_show(said: Said, two_runs: Path, tmp_path: Path):
    run = two_runs / "finetune-20231114-221320-0f6b"
    checkpoint(run, 8)
    (checkpoint(run, 12) / "model.safetensors").write_bytes(bytes(7))
    text = "\n".join(said("runs", "show", run.name, "--json", "run.json", width=80))
    for expected in (
        "status    done: 3/3 epochs, step 12, 2.2 min\n  written   56.8 min ago\n",
        "data      imagefolder /photos: 8 + 8 images, 2 classes",
        "recipe finetune: keys that differ from the shipped recipe\n  key         this run   before\n",
        '  data_dir    "/photos"  null\n',
        "          best, epoch 2  last, epoch 3\n  nll              1.00           1.00\n"
        "  top1 *          30.00          20.00\n",
        "newest  damaged\n",
        "best    intact\n  step-00000012: model.safetensors has 7 bytes instead of 2,000\n",
        f"  validate  vitcli validate runs/{run.name}\n",
    ):
        assert expected in text
    assert "--resume" not in text
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["differs"]["data_dir"] == {"before": None, "now": "/photos"}
    assert [one["step"] for one in found["checkpoints"]] == [12, 8]


def test_show_what_is_left_of_a_run(said: Said, two_runs: Path):
    """Its commands are those that can be typed: without a checkpoint there is nothing to validate."""
    text = "\n".join(said("runs", "show", "own"))
    assert "continue  vitcli train --resume runs/own\n" in text
    assert "vitcli validate" not in text
    for name in ("recipe.yaml", "status.json", "metrics.jsonl"):
        (two_runs / "own" / name).write_bytes(b"\xff")
    text = "\n".join(said("runs", "show", "own"))
    assert "status    unknown: 0 epochs" in text
    assert "recipe: not known" in text
    assert "note: recipe.yaml cannot be read" in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("onw", ["error: there is no run onw", "help: did you mean runs/own?"]),
        ("runs/owm", ["error: there is no run runs/owm", "help: did you mean runs/own?"]),
        ("runs", ["error: runs is a folder, but no run", "help: give one of its 2 runs, such as runs/finetune"]),
        ("runs/own/checkpoints/best", ["error: runs/own/checkpoints/best is a", "help: give its run: runs/own"]),
        ("runs/own/recipe.yaml", ["error: runs/own/recipe.yaml is not the folder of a run", "help: "]),
        ("x" * 300, ["error: there is no run xxx", "help: `vitcli runs ls DIR` lists the runs"]),
        ("", ["error: ", "help: "]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [["show"], ["rm", "--yes"], ["compare", "own"]])
def test_what_is_no_run(said: Said, two_runs: Path, command: list[str], word: str, expected: list[str]):
    (two_runs / "own" / "checkpoints" / "best").mkdir()
    lines = said("runs", *command, word, code=2)
    assert [line.startswith(start) for line, start in zip(lines, expected, strict=True)] == [True, True], lines
    assert len(list(two_runs.iterdir())) == 2


def test_compare_groups_seeds(said: Said, tmp_path: Path):
    best = {"a": 30.0, "b": 33.0, "c": 36.6}
    for seed, (name, value) in enumerate(best.items()):
        write_run(tmp_path / "runs" / name, "finetune", lr=0.1, seed=seed, values=(10.0, value, 20.0), run_dir=name)
    write_run(tmp_path / "runs" / "d", "finetune", lr=0.5, seed=1)
    lines = said("runs", "compare", "a", "b", "c", "d", "--json", "c.json", width=100)
    assert lines == [
        "run    lr   seed        best top1     last top1           time",
        "a + 2  0.1  0, 1, 2  33.20 ± 3.30  20.00 ± 0.00  2.2 min ± 0 s",
        "d      0.5  1               30.00         20.00        2.2 min",
        "mean ± standard deviation over runs that differ only in `seed`",
    ]
    group, other = json.loads((tmp_path / "c.json").read_text())
    assert group["best"] == {"mean": mean(best.values()), "sd": stdev(best.values()), "values": [*best.values()]}
    assert other["best"] == {"mean": 30.0, "sd": None, "values": [30.0]}
    assert other["keys"] == {"lr": 0.5}


def test_compare_turns_what_does_not_fit(said: Said, two_runs: Path):
    names = [path.name for path in two_runs.iterdir()]
    lines = said("runs", "compare", *names, width=100)
    assert lines[0].split() == names
    assert "own is killed, after 1/100 epochs" in lines[-1]
    assert max(map(len, lines)) <= 100
    narrow = said("runs", "compare", *names, width=60)
    assert max(map(len, narrow)) <= 60
    assert sum(line.startswith("best top1") for line in narrow) == 2


def test_compare_says_what_cannot_be_compared(said: Said, two_runs: Path):
    first, second = two_runs.iterdir()
    (first / "data.json").write_text(json.dumps({"val": {"num_images": 9}}))
    assert "note: the runs were not evaluated on the same images" in said("runs", "compare", first, second)
    assert said("runs", "compare", first, code=2)[0] == "error: a comparison needs at least two runs"
    (second / "recipe.yaml").unlink()
    assert said("runs", "compare", first, second, code=3)[0].endswith("recipe.yaml is missing")


def test_rm(said: Said, two_runs: Path, tmp_path: Path):
    outside = tmp_path / "photos"
    outside.mkdir()
    (outside / "cat.png").touch()
    (two_runs / "own" / "data").symlink_to(outside)
    assert said("runs", "rm", "own", code=2)[0].startswith("error: removing runs must be confirmed")
    assert said("runs", "rm", "own", "own", "--yes") == ["removed runs/own, 3.00 GB"]
    assert not (two_runs / "own").exists()
    assert (outside / "cat.png").exists()


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("yes\n", True), ("n\n", False), ("", False)])
def test_rm_asks(said: Said, two_runs: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool):
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    said("runs", "rm", "own")
    assert (two_runs / "own").exists() != removed


def test_rm_leaves_what_it_must_not_remove(said: Said, two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = two_runs / "own"
    (tmp_path / "link").symlink_to(own)
    lock(own)
    assert (
        "runs/own is in use by process" in said("runs", "rm", "finetune-20231114-221320-0f6b", "own", "-y", code=2)[0]
    )
    unlock()
    for word in ("link", "link/", "./link/."):
        assert "link is a link" in said("runs", "rm", word, "-y", code=2)[0]
    for name in ("env.json", "recipe.yaml", "status.json"):
        (own / name).unlink()
    assert said("runs", "rm", "own", "-y", code=2)[0] == "error: runs/own may not be a run"
    monkeypatch.chdir(two_runs / "finetune-20231114-221320-0f6b" / "checkpoints")
    assert "contains the current folder" in said("runs", "rm", "..", "-y", code=2)[0]
    assert len(list(two_runs.iterdir())) == 2


def test_recipes_of_runs(said: Said, two_runs: Path):
    lines = said("recipes", "diff", "finetune", two_runs / "finetune-20231114-221320-0f6b")
    assert [line.split()[0] for line in lines[1:]] == ["data_dir", "epoch_size"]
    assert said("recipes", "show", two_runs / "own")[0] == f"# {two_runs}/own/recipe.yaml"


def test_version(said: Said):
    from importlib.metadata import version

    line = "".join(said("--version"))
    assert f"torch {version('torch')}" in line
    assert line.startswith("vitcli ")


def test_a_real_run(said: Said, tmp_path: Path):
    """Its table at the end and the list say the same; a session that is added is counted."""
    words = (
        "--dataset", "synthetic", "--num_samples", 32, "--image_resize", 32, "--batch_size", 16, "--epoch_size", 1,
        "--model", "fvit", "--num_parallel_workers", 0, "--amp", "off", "--run_dir", "runs/real",
    )  # fmt: skip
    said("train", *words)
    (row,) = said("runs", "ls")[1:]
    assert row.split()[:5] == ["real", "defaults", "fvit", "done", "1/1"]
    end = said("train", "--resume", "runs/real")
    assert any("min in 2 sessions" in line for line in end)
    sessions = json.loads((tmp_path / "runs/real/status.json").read_text())["sessions"]
    assert all(first["start"] + first["seconds"] <= second["start"] for first, second in pairwise(sessions))
    text = "\n".join(said("runs", "show", "real"))
    assert "in 2 sessions" in text
    assert "newest  intact" in text or "best newest  intact" in text
