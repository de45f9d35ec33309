"""The table after many images: counted by hand."""

from vitcli.deploy.predictions import Answer
from vitcli.deploy.summary import Summary
from vitcli.evaluators.statistics import wilson


def summary_of(answers: list[Answer], names: list[str], *, multi_label: bool = False) -> list[str]:
    summary = Summary(names, multi_label=multi_label)
    for answer in answers:
        summary.add(answer)
    return summary.text().split("\n")


def test_classes_in_the_order_of_their_number():
    answers = [Answer(f"{n}.jpg", [("dog", 0.5), ("cat", 0.5)]) for n in range(2)]
    answers += [
        Answer("3.jpg", [("cat\x1b", 0.75)]),
        Answer("bad.jpg", [], "no image"),
        Answer("4.jpg", [("dog", 0.8)]),
    ]
    assert summary_of(answers, ["cat\x1b", "dog", "owl"]) == [
        "class    images  mean probability",
        "dog           3           60.00 %",
        "cat\\x1b       1           75.00 %",
    ]


def test_folders_that_name_classes():
    answers = [
        Answer(f"val/{folder}/{n}.jpg", [("cat", 0.9)]) for n, folder in enumerate(["cat"] * 3 + ["dog", "else"])
    ]
    low, high = wilson(3, 4)
    assert summary_of(answers, ["cat", "dog"])[-1] == (
        f"the folders name classes: 3 of 4 right, 75.0 % (95 % interval {100 * low:.1f} to {100 * high:.1f}); "
        "1 image is in another folder"
    )
    assert len(summary_of(answers, ["owl", "fox"])) == 2, "folders of other names say nothing"
    accents = [Answer("cafe\u0301/1.jpg", [("caf\xe9", 0.9)]), Answer("cafe\u0301/2.jpg", [("caf\xe9", 0.9)])]
    assert "2 of 2 right" in summary_of(accents, ["caf\xe9"])[-1], "in any spelling of an accent"


def test_several_classes_per_image():
    answers = [Answer("a/1.jpg", [("a", 0.9), ("b", 0.7)]), Answer("a/2.jpg", []), Answer("a/3.jpg", [("b", 0.5)])]
    assert summary_of(answers, ["a", "b"], multi_label=True) == [
        "class  images  mean probability",
        "b           2           60.00 %",
        "a           1           90.00 %",
        "none        1",
    ]


def test_many_classes_are_cut():
    answers = [Answer(f"{n}", [(f"c{n:02}", 0.5)]) for n in range(25)]
    lines = summary_of(answers, [f"c{n:02}" for n in range(25)])
    assert len(lines) == 22
    assert lines[-1] == "… and 5 more classes with 5 images"
