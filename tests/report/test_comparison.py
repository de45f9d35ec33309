"""Two networks on the same images, by hand and against scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from vitcli.data.source import ArrayImages
from vitcli.errors import DataError, UsageError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.report.comparison import check_comparable, compared


def answers(predicted: list[int], targets: list[int], names: list[str]) -> ImageAnswers:
    logits = 5 * np.eye(len(names), dtype=np.float32)[predicted]
    return ImageAnswers([f"{i}.png" for i in range(len(targets))], names, np.array(targets), logits)


def test_counts_and_p():
    """Of 20 images only the first is right on 7, only the second on 1; the classes are in another order."""
    truth = [0] * 20
    first = answers([0] * 19 + [1], truth, ["a", "b"])
    second = answers([0] * 7 + [1] * 12 + [1], [1] * 20, ["b", "a"])
    found = compared(first, second)
    assert found.only_first.tolist() == list(range(7))
    assert found.only_second.tolist() == [19]
    assert found.changed.tolist() == [*range(7), 19]
    assert found.p == pytest.approx(binomtest(1, 8).pvalue)
    numbers = found.as_dict()
    assert (numbers["top1_first"], numbers["top1_second"], numbers["num_changed"]) == (95, 65, 8)
    rows = dict(found.rows())
    assert rows["right only"] == "first 7, second 1"
    assert "no difference is shown" in rows["McNemar's exact p"]
    assert rows["  0.png"] == "'a' 99.3 % -> 'b' 99.3 %  (it is 'a')"


def test_a_difference_that_is_shown():
    first, second = answers([0] * 12, [0] * 12, ["a", "b"]), answers([1] * 12, [0] * 12, ["a", "b"])
    rows = compared(first, second).rows()
    assert "the first is better" in dict(rows)["McNemar's exact p"]
    assert rows[-1] == ("", "… and 2 more; --predictions FILE has all")


def images(num: int, names: list[str], title: str = "x", labels: list[int] | None = None) -> ArrayImages:
    targets = np.array(labels or [0] * num)
    return ArrayImages(np.zeros((num, 2, 2), dtype=np.uint8), targets, names, title)


def test_what_cannot_be_compared():
    check_comparable(images(3, ["a", "b"], labels=[0, 1, 0]), images(3, ["b", "a"], labels=[1, 0, 1]))
    with pytest.raises(UsageError, match="only one of them knows 'b', 'c'"):
        check_comparable(images(3, ["a", "b"]), images(3, ["a", "c"]))
    with pytest.raises(DataError, match="3 and 4"):
        check_comparable(images(3, ["a"]), images(4, ["a"]))
    with pytest.raises(DataError, match=r"x\[0\] and y\[0\]"):
        check_comparable(images(3, ["a"]), images(3, ["a"], "y"))
    with pytest.raises(DataError, match=r"x\[1\] and x\[1\]"):
        check_comparable(images(2, ["a", "b"], labels=[0, 1]), images(2, ["a", "b"], labels=[0, 0]))
    with pytest.raises(DataError, match="one class"):
        check_comparable(images(2, ["a"]).with_one_label_each(), images(2, ["a"]))
