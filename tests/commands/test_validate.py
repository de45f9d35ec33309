"""`vitcli validate RUN`: what a network gets wrong, two networks on the same images, calibrated probabilities."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tests.commands.colored_run import CLASSES, make_images, make_run
from tests.report.pages import Page, read_page
from tests.support.commands import options, run_here
from vitcli.commands.validate import validate
from vitcli.networks.calibration import CALIBRATION
from vitcli.networks.opened import open_model
from vitcli.recipe.load import load_recipe
from vitcli.report.answers_file import read_answers
from vitcli.report.chance import shown_p


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors")
    make_images(root / "data", split="train", seed=1)
    make_images(root / "data", seed=2)
    make_run(root / "run", root / "data")
    make_run(root / "other", root / "data", noise=0.5)
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its own, in the current folder."""
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def words(text: str) -> str:
    """Without the frame of a table and its line breaks."""
    return " ".join(text.replace("│", " ").split())


def alone(data: Path) -> list[str]:
    """What the file of weights alone does not tell."""
    Path("classes.txt").write_text("\n".join(CLASSES))
    keys = {"depth": 1, "patch_size": 8, "model": "vit_ti_patch16", "image_resize": 16, "crop_pct": 1.0}
    return options(keys | {"data_dir": data, "class_names": "classes.txt", "device": "cpu"})


def numbers(file: str) -> dict:
    return json.loads(Path(file).read_text())


def page_of(file: str) -> Page:
    return read_page(Path(file).read_text())


def ece(file: str, temperature: float = 1.0) -> float:
    """In percent, by its definition, from all three probabilities of each image.

    temperature: by which the logits, whose differences are those of the log-probabilities, are divided again.
    """
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    logs = np.log([[row[name] for name in ("probability", "probability_2", "probability_3")] for row in rows])
    sure = 1 / np.exp((logs - logs[:, :1]) / temperature).sum(1)
    right = np.array([row["correct"] for row in rows])
    bins = np.minimum((sure * 15).astype(int), 14)
    return 100 / len(rows) * sum(abs(right[bins == k].sum() - sure[bins == k].sum()) for k in range(15))


def test_classes_and_answers(run: Path, capsys):
    assert (
        run_here("validate", run, "--json", "found.json", "--predictions", "answers.csv", "--report", "page.html") == 0
    )
    found, rows = numbers("found.json"), list(read_answers(Path("answers.csv")))
    assert len(rows) == found["num_images"] == 120
    assert sum(row.correct for row in rows) == found["correct1"]
    assert np.mean([row.loss for row in rows]) == pytest.approx(found["nll"], rel=1e-4)
    assert all(row.path.startswith(row.target) for row in rows), "the folder of an image is its class"
    truth, said = [row.target for row in rows], [row.predicted for row in rows]
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, labels=CLASSES)
    for number, name in enumerate(CLASSES):
        one = found["classes"][name]
        assert (one["precision"], one["recall"], one["f1"]) == pytest.approx(
            tuple(100 * scores[number] for scores in (precision, recall, f1))
        )
        assert one["recall95"][0] < one["recall"] < one["recall95"][1]
    printed = words(capsys.readouterr().out)
    lowest = min(CLASSES, key=lambda name: found["classes"][name]["recall"])
    assert f"worst classes by recall {lowest} recall {found['classes'][lowest]['recall']:.2f} %" in printed
    assert f"calibration ECE {found['calibration']['ece']:.2f} % in 15 bins" in printed
    assert found["raw_weights"]["top1"] != found["top1"]
    assert f"raw weights top1 {found['raw_weights']['top1']:.4g}" in printed
    page = page_of("page.html")
    assert f"{found['top1']:.2f} % top-1" in page.text
    cells = page.rows["Images of each true class (rows) by predicted class (columns)"]
    assert np.array_equal([row[1:] for row in cells[1:]], confusion_matrix(truth, said, labels=CLASSES).astype(str))
    assert page.text.count(f"vitcli train --resume {run}") == 1, "the folder of the run is read too"


@pytest.mark.parametrize("kind", ["checkpoint", "weights"])
def test_a_report_of_what_is_no_run(kind: str, made: Path, run: Path):
    checkpoint = run / "checkpoints" / "step-00000010"
    words = [checkpoint]
    if kind == "weights":
        shutil.copy(checkpoint / "ema.safetensors", "alone.safetensors")
        words = ["alone.safetensors", *alone(made / "data")]
    assert run_here("validate", *words, "--json", "found.json", "--report", "page.html") == 0
    page = page_of("page.html")
    assert f"{numbers('found.json')['top1']:.2f} % top-1" in page.text
    known = dict(page.rows["Weights, images and preprocessing"])
    assert known["weights"].endswith(".safetensors")
    assert known["images"] == str(made / "data")
    assert known["image_resize"] == "16"
    assert "Keys that differ" not in page.rows
    names = [attributes["alt"] for element, attributes in page.elements if element == "img"]
    assert len(names) == 36, "18 images with heat maps"


@pytest.mark.parametrize("chosen", ["True", "False"])
def test_chosen_weights_are_the_only_ones(chosen: str, run: Path, capsys):
    assert run_here("validate", run, "--use_ema", chosen, "--json", "found.json") == 0
    assert "raw_weights" not in numbers("found.json")
    assert "raw weights" not in capsys.readouterr().out


@pytest.mark.parametrize("way", ["words", "options"])
def test_two_networks(way: str, made: Path, run: Path, capsys):
    other = made / "other"
    sources = [run, other] if way == "words" else ["--ckpt_path", run, "--ckpt_path", other]
    words_ = ["--json", "two.json", "--predictions", "two.jsonl", "--report", "page.html"]
    assert run_here("validate", *sources, *words_) == 0
    found = numbers("two.json")
    rows = [json.loads(line) for line in Path("two.jsonl").read_text().splitlines()]
    pairs = [(row["first.correct"], row["second.correct"]) for row in rows]
    assert found["comparison"]["only_first"] == pairs.count((True, False))
    assert found["comparison"]["only_second"] == pairs.count((False, True))
    for which in ("first", "second"):
        assert found["comparison"][f"top1_{which}"] == pytest.approx(found[which]["top1"])
    assert found["first"]["top1"] != found["second"]["top1"]
    assert "McNemar's exact p" in capsys.readouterr().out
    check_page(page_of("page.html"), pairs)
    checkpoint = run / "checkpoints" / "step-00000010"
    assert run_here("validate", checkpoint, other, "--report", "mixed.html") == 0
    page = page_of("mixed.html")
    assert "The best of 2 networks" in page.text
    check_page(page, pairs)


def check_page(page: Page, pairs: list[tuple[bool, bool]]) -> None:
    """McNemar's test and the intervals are scipy's."""
    only = pairs.count((True, False)), pairs.count((False, True))
    p = binomtest(only[0], sum(only)).pvalue
    [row] = page.rows["McNemar's test"][1:]
    assert row[:6] == [
        "A and B",
        *map(str, (pairs.count((True, True)), *only, pairs.count((False, False)))),
        shown_p(p),
    ]
    for which, row in enumerate(page.rows["Runs and their results"][1:]):
        right = sum(pair[which] for pair in pairs)
        limits = binomtest(right, len(pairs)).proportion_ci(method="wilson")
        assert row[4] == f"{100 * limits.low:.2f} – {100 * limits.high:.2f}"


def test_other_images_are_not_compared(made: Path, run: Path, tmp_path: Path, capsys):
    shutil.copytree(made / "data" / "train", tmp_path / "less" / "train")
    make_images(tmp_path / "less", per_class=2)
    make_run(tmp_path / "on_less", tmp_path / "less")
    assert run_here("validate", run, "on_less") == 3
    assert "other validation images: 120 and 6" in words(capsys.readouterr().err)
    make_run(tmp_path / "renamed", made / "data", names=["blau", *CLASSES[1:]])
    assert run_here("validate", run, "renamed") == 3, "its classes are not those of the data"


def test_temperature(run: Path, capsys):
    """Fitted for the average: validate, predict and export use it, and the raw weights do not."""
    assert run_here("validate", run, "--use_ema", "True", "--json", "before.json") == 0
    assert run_here("validate", run, "--temperature", "fit", "--json", "fit.json", "--report", "fit.html") == 0
    before, fit = numbers("before.json"), numbers("fit.json")["fitted_temperature"]
    assert fit["temperature"] > 1.5, "the network is too sure"
    assert fit["nll_after"] < fit["nll_before"]
    assert (fit["num_fitted"], fit["num_measured"]) == (60, 60)
    files = ["--json", "after.json", "--predictions", "after.jsonl", "--report", "after.html"]
    assert run_here("validate", run, "--use_ema", "True", *files) == 0
    assert run_here("report", run, "-o", "report.html") == 0
    errors = ece("after.jsonl"), ece("after.jsonl", 1 / fit["temperature"])
    assert errors[0] < errors[1] / 2
    said = f"{fit['temperature']:.3f}, as stored; without it, ECE is {errors[1]:.2f} %"
    for file in ("fit.html", "after.html", "report.html"):
        shown = dict(page_of(file).rows["Calibration"])
        assert shown["expected calibration error (ECE)"] == f"{errors[0]:.2f} %, 15 bins of equal width", file
        assert shown["temperature"] == said, file
    after = numbers("after.json")
    assert after["temperature"] == fit["temperature"]
    assert after["correct1"] == before["correct1"]
    assert after["nll"] < before["nll"]
    assert after["calibration"]["ece"] < before["calibration"]["ece"]
    assert run_here("validate", run, "--use_ema", "True", "--temperature", "none", "--json", "none.json") == 0
    assert numbers("none.json")["nll"] == before["nll"]
    raw = open_model(run, recipe=load_recipe(use_ema=False))
    assert raw.temperature == 1
    assert open_model(run / "checkpoints" / "step-00000010").temperature == fit["temperature"]


@pytest.mark.slow
def test_calibrated_probabilities_are_the_same_everywhere(run: Path, made: Path, capsys):
    assert run_here("validate", run, "--temperature", "fit") == 0
    assert run_here("validate", run, "--predictions", "answers.jsonl") == 0
    assert run_here("export", run, "--to", "onnx", "-o", "exported", "--data_dir", made / "data") == 0
    assert "The probabilities are calibrated" in Path("exported/README.md").read_text()
    picture = made / "data" / "val" / "red" / "00.png"
    for source in (run, "exported"):
        assert run_here("predict", source, picture, "--json", f"{Path(source).name}.json") == 0
    wanted = next(row for row in read_answers(Path("answers.jsonl")) if row.path == "red/00.png")
    for name in ("run", "exported"):
        [answer] = json.loads(Path(f"{name}.json").read_text())
        first = answer["predictions"][0]
        assert first == {"class": wanted.predicted, "probability": pytest.approx(wanted.probability, abs=1e-4)}
    found = validate(
        load_recipe(ckpt_path=run, data_dir=made / "data"), compare_with="exported", report=Path("two.html")
    )
    assert [row[1] for row in page_of("two.html").rows["Runs and their results"][1:]] == ["run (unknown)", "exported"]
    assert run_here("validate", "exported", "--data_dir", made / "data", "--report", "exported.html") == 0
    assert f"{found['top1_second']:.2f} % top-1" in page_of("exported.html").text
    assert (found["num_changed"], found["mcnemar_p"]) == (0, 1)


def test_any_number_of_classes(run: Path):
    keys = ["--task", "multilabel", "--use_ema", "True"]
    assert run_here("validate", run, *keys, "--predictions", "answers.jsonl", "--json", "found.json") == 0
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert len(rows) == 120
    for row in rows:
        assert row["classes"] == [row["path"].split("/")[0]]
        assert row["predicted"] == [name for name in CLASSES if row[f"probability.{name}"] >= 0.5]
    found = numbers("found.json")
    assert [found["classes"][name]["f1"] for name in CLASSES] == pytest.approx(
        [found[f"f1.{name}"] for name in CLASSES]
    )
    assert run_here("validate", run, *keys, "--temperature", "fit") == 2


@pytest.mark.parametrize(
    ("words_", "code", "message"),
    [
        (["--predictions", "answers.xlsx"], 2, "ends in .csv, .tsv, .jsonl or .parquet"),
        (["--predictions", "no/such/a.csv"], 2, "there is no folder no/such"),
        (["--report", "no/such/page.html"], 2, "there is no folder no/such"),
        (["--predictions", "page.csv", "--evaluate", "collapse"], 2, "--predictions needs answers with classes"),
        (["--temperature", "fit", "--eval_crops", "5"], 2, "fitted for one crop"),
        (["--temperature", "fit", "--evaluate", "collapse"], 2, "needs answers with classes"),
        (["--temperature", "fit", "--use_ema", "False"], 3, "no better than chance"),
    ],
)
def test_refused(words_: list[str], code: int, message: str, run: Path, capsys):
    assert run_here("validate", run, *words_) == code
    assert message in words(capsys.readouterr().err)
    assert not (run / CALIBRATION).exists()


def test_a_temperature_has_its_place_in_a_run(run: Path, made: Path, capsys):
    shutil.copy(run / "checkpoints/step-00000010/ema.safetensors", "alone.safetensors")
    assert run_here("validate", "alone.safetensors", *alone(made / "data"), "--temperature", "fit") == 2
    assert "is not a checkpoint of a run" in words(capsys.readouterr().err)


@pytest.mark.parametrize("content", ["{", "{}", '{"networks": 1}'])
def test_a_damaged_temperature(content: str, run: Path, capsys):
    (run / CALIBRATION).write_text(content)
    assert run_here("validate", run) == 3
    assert CALIBRATION in words(capsys.readouterr().err)


@pytest.mark.slow
def test_two_ranks(run: Path, torchrun: Callable, vitcli: Callable):
    """The same answers, in the same order, and the same temperature."""
    assert vitcli("validate", "run", "--predictions", "one.jsonl").returncode == 0
    done = torchrun(2, "vitcli", "validate", "run", "--predictions", "two.jsonl", "--val_batch_size", 7)
    assert done.returncode == 0, done.stderr
    one, two = (list(read_answers(Path(name))) for name in ("one.jsonl", "two.jsonl"))
    assert [(row.path, row.predicted) for row in one] == [(row.path, row.predicted) for row in two]
    assert [row.loss for row in one] == pytest.approx([row.loss for row in two], abs=1e-4)
    done = torchrun(2, "vitcli", "validate", "run", "--temperature", "fit", "--json", "fit.json")
    assert done.returncode == 0, done.stderr
    stored = json.loads((run / CALIBRATION).read_text())["networks"]
    assert [one["temperature"] for one in stored.values()] == [numbers("fit.json")["fitted_temperature"]["temperature"]]
