"""`vitcli bench infer`: rows for what can be measured, reasons for the rest, each item in a process of its own."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vitcli.cli import main
from vitcli.commands.bench import bench_infer
from vitcli.deploy.measure import Row, Worker
from vitcli.deploy.measure_worker import Candidate, memory_bytes, open_network
from vitcli.errors import UsageError


def test_artifacts_are_compared_in_a_table(artifact, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["vitcli", "bench", "infer", "a b"])
    one, two, fixed = artifact("one"), artifact("a" * 60, pixels=False), artifact("fixed", batch=4)
    file = tmp_path / "bench.json"
    items = [str(one), str(two), str(fixed)]
    rows = bench_infer(items, batches=[2], threads=[1], rounds=2, seconds=0.02, json_file=file)
    assert [row.item for row in rows] == items
    for row in rows[:2]:
        assert (row.format, row.precision, row.batch, row.threads) == ("onnx", "fp32", 2, 1)
        assert 0 < row.p50_ms <= row.p95_ms
        assert 0.01 < row.images_per_second * row.p50_ms / 2000 < 2, "near the median, if nothing interfered"
        assert row.size_mb == 0.0
        assert row.packages == ["onnxruntime"], "torch is not in its memory"
        assert row.memory_mb is None or 5 < row.memory_mb < 300
    assert rows[0].ratio == 1
    assert (rows[2].why_not, rows[2].failed, rows[2].p50_ms) == ("takes 4 at a time", False, None)
    printed = capsys.readouterr().out
    for words in (
        "| item ",
        "|--",
        f"{fixed}: takes 4 at a time",
        "onnxruntime 1.",
        "2 rounds of 0.02 s",
        "bench infer 'a b'",
    ):
        assert words in printed
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    assert len(table) == 5, "no row is wrapped"
    stored = json.loads(file.read_text())
    assert [row["ratio"] for row in stored["rows"]] == [row.ratio for row in rows]
    assert "vitcli" in stored["versions"]


def test_the_ratio_is_taken_within_rounds():
    """A machine that becomes slower from round to round does not change the ratio."""
    first, second = (object.__new__(Worker) for _ in range(2))
    for worker, times in ((first, [[4.0, 4.0, 9.0], [8.0, 8.0, 8.0]]), (second, [[2.0, 2.0, 2.0], [4.0, 4.0, 90.0]])):
        worker.candidate = Candidate("x", 10, 1)
        worker.times_ms = times
        worker.facts = {"format": "f", "precision": "p", "size_bytes": 2_500_000, "memory_bytes": None, "packages": []}
    row = second.row(compared_with=first)
    assert row == Row(
        "x", 10, 1, "f", "p", p50_ms=3.0, p95_ms=np.percentile([2, 2, 2, 4, 4, 90], 95),
        images_per_second=round(10_000 / (104 / 6), 1), ratio=2.0, size_mb=2.5,
    )  # fmt: skip


def test_a_worker_that_dies_is_distinguished_from_one_that_refuses(artifact):
    order = Candidate(str(artifact()), 1, 1)
    killed, missing = Worker(order), Worker(Candidate(str(artifact("gone")), 1, 1, plugins=("no_such_plugin.py",)))
    try:
        killed.listen()
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.run(0.01)
        missing.listen()
        missing.run(0.01)
    finally:
        killed.stop()
        missing.stop()
    row = killed.row(compared_with=missing)
    assert row.failed
    assert row.why_not == "ended by SIGKILL (out of memory?)"
    assert "no_such_plugin.py" in (missing.row(compared_with=killed).why_not or "")


def test_a_failing_item_does_not_affect_other_rows(artifact, capsys):
    good, changed = artifact("good"), artifact("changed")
    (changed / "labels.txt").write_text("a\n")
    with pytest.raises(SystemExit) as end:
        main(
            [
                "bench",
                "infer",
                str(changed),
                str(good),
                "--batch",
                "1",
                "--threads",
                "1",
                "--rounds",
                "1",
                "--seconds",
                "0",
            ]
        )
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert "1 of 2 rows could not be measured" in printed.err
    assert "labels.txt has 2 bytes instead of" in printed.out
    cells = [line.split("|")[1:-1] for line in printed.out.splitlines() if line.startswith("|")][2:]
    assert cells[0][5].strip() == "failed"
    assert float(cells[1][5]) >= 0
    assert cells[1][8].strip() == "–", "there is nothing to compare it with"


def test_models_by_name(artifact, monkeypatch: pytest.MonkeyPatch):
    """Compared with timm's model of the same architecture, built here."""
    timm = pytest.importorskip("timm")
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    orders = [Candidate(item, 2, 3, img_size=64) for item in ("vit_ti_patch16", "timm:vit_tiny_patch16_224")]
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64)
    for network in map(open_network, orders):
        assert network.size_bytes == pytest.approx(4 * sum(p.numel() for p in theirs.parameters()), rel=0.003)
        assert network.run().shape == (2, 1000)
        assert (network.format, network.precision) == ("pytorch", "fp32")
    assert threads == [3, 3]
    with pytest.raises(UsageError, match="vit_ti_patch61") as wrong:
        open_network(Candidate("vit_ti_patch61", 1, 1))
    assert "did you mean 'vit_ti_patch16'" in str(wrong.value)
    with pytest.raises(UsageError, match="timm has no model 'vit_x'"):
        open_network(Candidate("timm:vit_x", 1, 1))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="needs timm"):
        open_network(orders[1])


@pytest.mark.parametrize("text", ["0", "1,x", ",", ""])
def test_counts_are_positive_numbers(text: str, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "infer", "x", "--batch", text])
    assert end.value.code == 2
    assert "is not a list of counts" in capsys.readouterr().err


def test_memory_is_in_bytes():
    kept = np.ones(40_000_000, dtype=np.uint8)
    now = memory_bytes("VmRSS")
    peak = memory_bytes("VmHWM")  # read last: the memory may still grow in between
    if peak is None or now is None:
        pytest.skip("this system does not report it")
    assert len(kept) < now <= peak < 64e9
