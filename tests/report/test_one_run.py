"""The report of one run: its numbers are scikit-learn's and scipy's, it survives any name, and shows what there is."""

import base64
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, precision_score, recall_score
from torch import nn

from tests.report.answers import made_up
from tests.report.pages import Page, read_page
from tests.report.test_markup import HOSTILE
from tests.support.run_folders import write_run
from vitcli.data.source import ArrayImages
from vitcli.distributed import World
from vitcli.evaluators.answers import ImageAnswers, MultiLabelAnswers
from vitcli.recipe.load import load_recipe
from vitcli.report.classes import classes_section, confusion_section, frequent_confusions
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.heat_pictures import over_picture
from vitcli.report.mistakes import worst_images
from vitcli.report.one_run import report_of_one
from vitcli.report.page import page, picture
from vitcli.report.run_record import RunRecord

ALONE = World(0, 1, 0, 1, torch.device("cpu"))
NAMES = ["cat", "dog", "emu", "fox", "gnu"]


def evaluation_of(
    answers: ImageAnswers | MultiLabelAnswers, numbers: dict[str, float] | None = None, temperature: float = 1.0
) -> EvaluatedNetwork:
    """Answers to images of noise, by a network that has no heat maps."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(answers), 16, 16, 3), dtype=np.uint8)
    images = ArrayImages(pixels, answers.targets, answers.class_names, "noise")
    recipe = load_recipe(image_resize=16, dataset="digits", device="cpu")
    network = nn.Identity()
    names, numbers = answers.class_names, numbers or {}
    return EvaluatedNetwork(recipe, network, "weights", names, images, answers, numbers, temperature)


def one_page(answers: ImageAnswers, run: Path | None = None) -> tuple[Page, str]:
    text = report_of_one(RunRecord(run) if run else None, evaluation_of(answers), ALONE)
    return read_page(text), text


def test_numbers_are_those_of_scikit_learn_and_scipy():
    answers = made_up(700, NAMES)
    found, _ = one_page(answers)
    matrix = confusion_matrix(answers.targets, answers.predicted)
    right = int(np.trace(matrix))
    interval = binomtest(right, 700).proportion_ci(method="wilson")
    assert f"{100 * right / 700:.2f} % top-1" in found.text
    said = (
        f"{right} of 700 validation images right; 95 % interval {100 * interval.low:.2f} – {100 * interval.high:.2f} %."
    )
    assert said in found.text.replace("\N{NO-BREAK SPACE}", " ")

    shown = {row[0]: row for row in found.rows["Recall and precision of each class, lowest recall first"][1:]}
    recall = recall_score(answers.targets, answers.predicted, average=None)
    precision = precision_score(answers.targets, answers.predicted, average=None)
    for number, name in enumerate(NAMES):
        limits = binomtest(int(matrix[number, number]), int(matrix[number].sum())).proportion_ci(method="wilson")
        _, images, _, of_recall, _, of_precision = shown[name]
        assert images == str(matrix[number].sum())
        assert of_recall == f"{100 * recall[number]:.1f} {100 * limits.low:.0f}–{100 * limits.high:.0f}"
        assert of_precision.startswith(f"{100 * precision[number]:.1f} ")
    assert [row[0] for row in found.rows[next(iter(found.rows))][1:]] == [
        NAMES[place] for place in np.argsort(recall, kind="stable")
    ]

    cells = found.rows["Images of each true class (rows) by predicted class (columns)"]
    assert cells[0][1:] == NAMES
    assert np.array_equal(np.array([row[1:] for row in cells[1:]], dtype=int), matrix)

    calibration = dict(found.rows["Calibration"])
    one_hot = np.eye(len(NAMES))[answers.targets]
    brier = sum(brier_score_loss(one_hot[:, k], answers.probabilities[:, k]) for k in range(len(NAMES)))
    assert calibration["Brier score"] == f"{brier:.4f}, from 0 to 2"
    probabilities = np.exp(answers.logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert calibration["negative log-likelihood"] == f"{log_loss(answers.targets, probabilities):.4f} nats"


def test_many_classes_are_shown_by_their_ends():
    names = [f"class {number:03}" for number in range(120)]
    answers = made_up(1200, names)
    found = read_page(page("", tables_of(answers), [], ""))
    recall = recall_score(answers.targets, answers.predicted, average=None)
    lowest = [row[3].split()[0] for row in found.rows["The 25 classes with the lowest recall"][1:]]
    highest = [row[3].split()[0] for row in found.rows["The 25 classes with the highest recall"][1:]]
    assert lowest == [f"{100 * value:.1f}" for value in np.sort(recall)[:25]]
    assert highest == [f"{100 * value:.1f}" for value in np.sort(recall)[::-1][:25]]
    assert len(found.rows["The 30 most frequent confusions"]) == 31
    assert not any("rows" in caption for caption in found.rows), "no matrix of 120 x 120"


@pytest.mark.parametrize(("num_classes", "says"), [(20, "numbers are images"), (50, "point at a cell"), (51, "")])
def test_the_numbers_of_a_matrix_are_where_it_says(num_classes: int, says: str):
    """In the cells of a small one; of a larger one only in their titles; above 50 classes there is none."""
    section = confusion_section(made_up(400, [f"class {number}" for number in range(num_classes)]))
    assert says in section.lead
    assert bool(section.lead) == (num_classes <= 50)
    assert ("confusion dense" in str(section.parts)) == (num_classes == 50)


def tables_of(answers: ImageAnswers):
    from vitcli.report.markup import many

    sections = classes_section(answers.per_class()), confusion_section(answers)
    return many(part for section in sections for part in section.parts)


def test_frequent_confusions_by_hand():
    matrix = np.array([[9, 2, 0], [5, 9, 2], [0, 0, 9]])
    assert frequent_confusions(matrix, 9) == [(1, 0, 5), (0, 1, 2), (1, 2, 2)]
    assert frequent_confusions(matrix, 1) == [(1, 0, 5)]
    assert "No image is taken" in confusion_section(perfect()).lead


def perfect() -> ImageAnswers:
    answers = made_up(20, NAMES)
    return ImageAnswers(answers.names, NAMES, answers.targets, 9 * np.eye(5, dtype=np.float32)[answers.targets])


def test_worst_images_have_the_largest_losses():
    answers = made_up(300, NAMES, seed=1)
    losses = -np.log(answers.probabilities[np.arange(300), answers.targets])
    worst = worst_images(answers, 10)
    wrong = [index for index in np.argsort(-losses) if answers.predicted[index] != answers.targets[index]]
    assert worst == wrong[:10]
    found, text = one_page(answers)
    pictures = [attributes for element, attributes in found.elements if element == "img"]
    assert len(pictures) == 18
    first = answers.names[worst[0]].rpartition("/")[2]
    true, predicted = NAMES[answers.targets[worst[0]]], NAMES[answers.predicted[worst[0]]]
    assert pictures[0]["alt"] == f"{first}: {true}, taken for {predicted}"
    data = re.findall(r"data:image/jpeg;base64,([^\"]*)", text)
    with Image.open(io.BytesIO(base64.b64decode(data[0]))) as image:
        assert image.size == (16, 16)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path, name: str):
    harmless, _ = one_page(made_up(40, ["A", "B"], skill=0), write_run(tmp_path / "harmless"))
    answers = made_up(40, [name, "B"], skill=0)
    run = write_run(tmp_path / "hostile", data_dir=tmp_path / name.replace("/", "").replace("\x00", ""), report=True)
    found, text = one_page(answers, run)
    kinds = [element for element, _ in harmless.elements]
    assert [element for element, _ in found.elements if element not in ("tr", "td", "th", "code", "span")] == [
        kind for kind in kinds if kind not in ("tr", "td", "th", "code", "span")
    ]
    assert not {attribute for _, attributes in found.elements for attribute in attributes if attribute.startswith("on")}
    assert all(place.startswith(("data:", "#")) for place in found.places)
    text.encode()


def test_the_policy_allows_nothing_and_nothing_is_asked_for(tmp_path: Path):
    found, text = one_page(made_up(50, NAMES), write_run(tmp_path / "run"))
    policy = [attributes["content"] for _, attributes in found.elements if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {element for element, _ in found.elements}
    assert not re.search(r"https?://|url\(|@import|//[a-z]+\.", text)
    assert {place.split(",")[0] for place in found.places if place[:1] != "#"} == {"data:", "data:image/jpeg;base64"}


def test_a_page_can_be_read_without_seeing_it(tmp_path: Path):
    found, _ = one_page(made_up(80, NAMES), write_run(tmp_path / "run"))
    levels = [int(element[1]) for element, _ in found.elements if re.fullmatch("h[1-6]", element)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attributes.get("alt") for element, attributes in found.elements if element == "img")
    for element, attributes in found.elements:
        assert element != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        assert element != "th" or attributes.get("scope")
    links = [place for place in found.places if place.startswith("#")]
    assert {f"#{attributes['id']}" for element, attributes in found.elements if element == "section"} == {*links}
    assert len(found.rows) == sum(element == "table" for element, _ in found.elements), "each table has its own caption"


def test_a_run_without_its_data_and_checkpoints_shows_what_its_folder_tells(tmp_path: Path):
    run = write_run(tmp_path / "run", "finetune", values=(10.0, 62.5, 20.0), lr=0.5, seed=7)
    found = read_page(report_of_one(RunRecord(run), None, ALONE))
    assert "62.50 % top-1" in found.text
    assert "in epoch 2" in found.text
    assert ["lr", "0.5"] in [row[:2] for row in found.rows["Keys that differ"]]
    assert f"vitcli train --resume {run}" in found.text
    (run / "metrics.jsonl").unlink()
    (run / "data.json").write_text("{")
    (run / "env.json").unlink()
    found = read_page(report_of_one(RunRecord(run), None, ALONE))
    assert "No result" in found.text
    assert "data.json is missing" in found.text


def test_any_number_of_classes_per_image():
    generator = np.random.default_rng(3)
    targets = generator.random((60, 3)) < 0.4
    logits = (4 * targets - 2 + 2 * generator.normal(size=targets.shape)).astype(np.float32)
    answers = MultiLabelAnswers([f"{n}.jpg" for n in range(60)], ["a", "<b>", "c"], targets, logits, np.full(3, 0.5))
    numbers = {"mAP": 71.234, "f1_micro": 60.0, "f1_macro": 50.0, "num_images": 60, "num_classes": 3}
    for column, name in enumerate(answers.class_names):
        numbers |= {f"ap.{name}": 50.0 + column, f"threshold.{name}": 0.5}
    found = read_page(report_of_one(None, evaluation_of(answers, numbers), ALONE))
    assert "71.23 % mAP" in found.text
    rows = found.rows["Average precision and F1 of each class, lowest first"][1:]
    assert [row[0] for row in rows] == ["a", "<b>", "c"]
    recall = recall_score(targets, logits >= 0, average=None)
    precision = precision_score(targets, logits >= 0, average=None)
    assert [row[6] for row in rows] == [f"{100 * r:.1f}, {100 * p:.1f}" for r, p in zip(recall, precision)]


def test_pictures_keep_nothing_of_their_file():
    image = Image.effect_noise((640, 400), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x9286] = "secret place"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, comment=b"secret place")
    with Image.open(stream) as opened:
        assert opened.getexif()
        shown = picture(opened, "")
    data = base64.b64decode(re.findall(r"base64,([^\"]*)", shown)[0])
    assert b"secret" not in data
    with Image.open(io.BytesIO(data)) as again:
        assert again.size == (160, 100)
        assert not again.getexif()
        assert "exif" not in again.info


def test_heat_over_a_picture():
    pixels = np.full((3, 4, 4), 128, dtype=np.uint8)
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1
    image, hot = over_picture(pixels, heat)
    assert np.asarray(image).tolist() == np.full((4, 4, 3), 128).tolist()
    assert np.asarray(hot)[0, 0].tolist() == [round(0.25 * 128 + 0.75 * part) for part in (252, 255, 164)]
    assert np.asarray(hot)[1, 1].tolist() == [round(0.7 * 128 + 0.3 * part) for part in (0, 0, 4)]
    assert over_picture(pixels[:1], None)[1] is None
