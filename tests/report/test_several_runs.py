"""The report of several runs: its tests are scipy's, repetitions are found, other things are not compared."""

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from torch import nn

from tests.report.answers import made_up
from tests.report.pages import Page, read_page
from tests.support.run_folders import write_run
from vitcli.data.datasets import build_split
from vitcli.evaluators.answers import ImageAnswers
from vitcli.recipe.load import load_recipe
from vitcli.report.chance import shown_p
from vitcli.report.compared_run import letter_of
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.run_record import RunRecord
from vitcli.report.several_runs import report_of_several

NAMES = ["cat", "dog", "emu"]


def evaluation_of(answers: ImageAnswers) -> EvaluatedNetwork:
    top1 = 100 * float(answers.correct.mean())
    recipe = load_recipe(dataset="digits")
    return EvaluatedNetwork(recipe, nn.Identity(), "weights", NAMES, answers=answers, numbers={"top1": top1})


def test_images_that_only_one_gets_right():
    """Twelve at most, the largest differences first; each with both answers and the truth."""
    first, second = made_up(200, NAMES, 0), made_up(200, NAMES, 1)
    images = build_split(load_recipe(dataset="digits").dataset, "val")
    found = read_page(
        report_of_several([None, None], [replace(evaluation_of(one), images=images) for one in (first, second)])
    )
    gaps = {
        index: abs(first.target_probability[index] - second.target_probability[index])
        for index in range(200)
        if first.correct[index] != second.correct[index]
    }
    wanted = sorted(gaps, key=lambda index: -gaps[index])[:12]
    described = [attributes["alt"] or "" for tag, attributes in found.elements if tag == "img"]
    assert [text.partition(":")[0] for text in described] == [f"{index:05}.jpg" for index in wanted]
    index, names = wanted[0], [NAMES[one.predicted[wanted[0]]] for one in (first, second)]
    assert described[0].endswith(f"{NAMES[first.targets[index]]}, taken for {names[0]} and {names[1]}")
    assert f"{len(gaps)} images are answered correctly by one of the two only" in found.text


def test_no_images_where_three_are_compared():
    answers = [made_up(60, NAMES, seed) for seed in range(3)]
    found = read_page(report_of_several([None] * 3, [evaluation_of(one) for one in answers]))
    assert "Changed images" not in found.text


def pages_of(tmp_path: Path, seeds: dict[str, ImageAnswers | None], **keys: object) -> Page:
    """Runs with these names, whose seeds are their numbers."""
    runs = [RunRecord(write_run(tmp_path / name, seed=n, **keys)) for n, name in enumerate(seeds)]
    return read_page(report_of_several(runs, [answers and evaluation_of(answers) for answers in seeds.values()]))


def test_mcnemar_is_the_binomial_test(tmp_path: Path):
    some = [made_up(400, NAMES, seed, skill) for seed, skill in ((0, 1.0), (1, 1.0), (2, 3.0))]
    found = pages_of(tmp_path, dict(zip("xyz", some, strict=True)))
    rows = {row[0]: row[1:] for row in found.rows["McNemar's test"][1:]}
    for pair, (one, other) in {"A and B": (0, 1), "A and C": (0, 2), "B and C": (1, 2)}.items():
        first, second = some[one].correct, some[other].correct
        counts = [int((first & second).sum()), int((first & ~second).sum()), int((~first & second).sum())]
        p = binomtest(counts[1], counts[1] + counts[2]).pvalue
        assert rows[pair][:3] == [str(count) for count in counts]
        assert rows[pair][4] == shown_p(p)
        assert rows[pair][5] == (f"{pair[-1]} is better" if p < 0.05 else "may be chance")
    assert "may be chance" in rows["A and B"]
    assert "C is better" in rows["A and C"]


def test_runs_that_differ_only_in_their_seed(tmp_path: Path):
    answers = [made_up(300, NAMES, seed) for seed in range(3)]
    found = pages_of(tmp_path, dict(zip("xyz", answers, strict=True)))
    results = [100 * float(one.correct.mean()) for one in answers]
    (row,) = found.rows["Repetitions"][1:]
    assert row[0].split() == ["A", "B", "C"]
    assert row[2] == f"{statistics.mean(results):.2f} ± {statistics.stdev(results):.2f} %"
    assert row[4] == "0, 1, 2"
    differences = [row[0] for row in found.rows["Keys that differ between the runs"][1:]]
    assert differences == ["result, %", "seed"]


def test_another_learning_rate_is_no_repetition(tmp_path: Path):
    runs = [RunRecord(write_run(tmp_path / str(lr), lr=lr, seed=seed)) for seed, lr in enumerate((0.1, 0.2))]
    found = read_page(report_of_several(runs, [None, None]))
    assert "Repetitions" not in found.rows
    assert ["lr", "0.1", "0.2"] in found.rows["Keys that differ between the runs"]
    assert "they did not answer the same images" in found.text
    assert "30.00 % top-1" in found.text, "as logged"


def test_other_images_are_not_compared(tmp_path: Path):
    one, other = made_up(90, NAMES), made_up(90, NAMES, seed=1)
    renamed = ImageAnswers([*other.names[1:], "another"], NAMES, other.targets, other.logits)
    relabeled = ImageAnswers(other.names, NAMES, np.roll(other.targets, 1), other.logits)
    for number, different in enumerate((renamed, relabeled)):
        found = pages_of(tmp_path / str(number), {"x": one, "y": different})
        assert "McNemar's test" not in found.rows
    mixed = pages_of(tmp_path / "mixed", {"x": one, "y": other, "z": renamed})
    assert [row[0] for row in mixed.rows["McNemar's test"][1:]] == ["A and B"]
    assert "2 pairs did not answer the same images" in mixed.text


def test_of_many_runs_each_is_compared_with_the_best(tmp_path: Path):
    answers = [made_up(120, NAMES, seed, skill=3.0 if seed == 4 else 1.0) for seed in range(8)]
    found = pages_of(tmp_path, {f"run {number}": one for number, one in enumerate(answers)})
    assert [row[0] for row in found.rows["McNemar's test"][1:]] == [f"E and {letter}" for letter in "ABCDFGH"]


def test_letters():
    assert [letter_of(number) for number in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"
    ]  # fmt: skip
