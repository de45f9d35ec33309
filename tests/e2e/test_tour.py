"""Two seeds of a small run, and the commands that say what they are worth: numbers are scikit-learn's and scipy's.

In one process: what is tested is that the commands agree, not how they start.
"""

import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, recall_score

from tests.commands.colored_run import CLASSES, KEYS, make_images
from tests.report.pages import Page, read_page
from tests.support.commands import options, run_here
from vitcli.report.answers_file import AnswerRow, read_answers
from vitcli.report.chance import shown_p

pytestmark = pytest.mark.slow
RUNS = ("a", "b")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images and the runs `a` and `b`, which differ in their seeds."""
    root = tmp_path_factory.mktemp("tour")
    for seed, split in enumerate(("train", "val")):
        make_images(root / "data", split=split, seed=seed)
    keys = KEYS | {"data_dir": root / "data", "epoch_size": 2, "batch_size": 8, "opt": "adamw", "lr": 1e-3,
                   "device": "cpu", "log_interval": 5}  # fmt: skip
    for seed, name in enumerate(RUNS):
        assert run_here("train", *options(keys | {"seed": seed, "run_dir": root / name})) == 0
    return root


@pytest.fixture
def answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[AnswerRow]]:
    """What each run answers, as `validate --predictions` writes it; `place` is the current folder."""
    monkeypatch.chdir(place)
    for name in RUNS:
        if not Path(f"{name}.csv").exists():
            assert run_here("validate", name, "--predictions", f"{name}.csv", "--json", f"{name}.json") == 0
    return [list(read_answers(Path(f"{name}.csv"))) for name in RUNS]


def pairs_of(answers: list[list[AnswerRow]]) -> list[tuple[bool, bool]]:
    assert [row.path for row in answers[0]] == [row.path for row in answers[1]]
    return [(one.correct, two.correct) for one, two in zip(*answers, strict=True)]


def page_of(file: str) -> Page:
    return read_page(Path(file).read_text())


def test_one_run(answers: list[list[AnswerRow]]):
    truth, said = [row.target for row in answers[0]], [row.predicted for row in answers[0]]
    matrix = confusion_matrix(truth, said, labels=CLASSES)
    recall = recall_score(truth, said, labels=CLASSES, average=None)
    assert run_here("report", "a", "-o", "a.html") == 0
    page, found = page_of("a.html"), json.loads(Path("a.json").read_text())
    cells = page.rows["Images of each true class (rows) by predicted class (columns)"]
    assert np.array_equal([row[1:] for row in cells[1:]], matrix.astype(str))
    shown = {row[0]: row[3] for row in page.rows["Recall and precision of each class, lowest recall first"][1:]}
    for number, name in enumerate(CLASSES):
        limits = binomtest(int(matrix[number, number]), int(matrix[number].sum())).proportion_ci(method="wilson")
        assert shown[name] == f"{100 * recall[number]:.1f} {100 * limits.low:.0f}–{100 * limits.high:.0f}"
        assert found["classes"][name]["recall"] == pytest.approx(100 * recall[number])
        assert found["classes"][name]["recall95"] == pytest.approx([100 * limits.low, 100 * limits.high])
    right = int(np.trace(matrix))
    limits = binomtest(right, len(truth)).proportion_ci(method="wilson")
    assert f"{100 * right / len(truth):.2f} % top-1" in page.text
    assert f"{100 * limits.low:.2f} – {100 * limits.high:.2f} %" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    best = json.loads(Path("a/status.json").read_text())["best"]
    assert 100 * right / len(truth) == pytest.approx(best), "the training measured the same"


def test_two_runs(answers: list[list[AnswerRow]]):
    pairs = pairs_of(answers)
    only = pairs.count((True, False)), pairs.count((False, True))
    p = binomtest(only[0], sum(only)).pvalue
    assert run_here("validate", "a", "b", "--json", "two.json") == 0
    found = json.loads(Path("two.json").read_text())["comparison"]
    assert (found["only_first"], found["only_second"]) == only
    assert found["mcnemar_p"] == pytest.approx(p)
    assert run_here("report", "a", "b", "-o", "two.html") == 0
    page = page_of("two.html")
    [row] = page.rows["McNemar's test"][1:]
    assert row[2:4] == [str(count) for count in only]
    assert row[5] == shown_p(p)
    results = [100 * sum(row.correct for row in rows) / len(rows) for rows in answers]
    assert run_here("runs", "compare", "a", "b", "--json", "runs.json") == 0
    [group] = json.loads(Path("runs.json").read_text())
    [repeated] = page.rows["Repetitions"][1:]
    assert repeated[2] == f"{mean(results):.2f} ± {stdev(results):.2f} %"
    assert (group["best"]["mean"], group["best"]["sd"]) == pytest.approx((mean(results), stdev(results)))
