"""Any number of classes per image as a user has it: a table of pictures with colored squares, from training to ONNX."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.e2e.test_resume import metrics
from tests.support.commands import options

COLORS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 230)}
#: a run of 5 epochs of 10 steps
KEYS = {
    "task": "multilabel", "dataset": "csv", "data_dir": "photos.csv", "model": "fvit", "image_resize": 32,
    "batch_size": 32, "epoch_size": 5, "warmup_epochs": 0, "lr": 3e-3, "num_parallel_workers": 0,
    "ckpt_save_steps": 13, "keep_checkpoint_max": 20,
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """320 training and 100 validation pictures, each with each color or without it at random."""
    rng = random.Random(0)
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_path", "label", "split"])
        for number in range(420):
            names = [name for name in COLORS if rng.random() < 0.4]
            picture = Image.new("RGB", (32, 32), (rng.randint(90, 140),) * 3)
            for name in names:
                x, y = rng.randint(0, 20), rng.randint(0, 20)
                ImageDraw.Draw(picture).rectangle((x, y, x + 11, y + 11), fill=COLORS[name])
            picture.save(tmp_path / "pictures" / f"{number}.png")
            rows.writerow([f"pictures/{number}.png", ";".join(names), "train" if number < 320 else "val"])
    return tmp_path / "photos.csv"


@pytest.mark.slow
def test_from_a_table_to_another_runtime(table: Path, tmp_path: Path, vitcli: Callable):
    vitcli_ok = partial(succeed, vitcli)
    vitcli_ok("train", "-c", "quickstart", *options(KEYS), "--run_dir", "run")
    state = json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())
    assert state["progress"]["best"] > 80, "chance is about 40"
    assert state["class_names"] == ["blue", "green", "red"]
    check_resume(tmp_path, vitcli_ok)

    vitcli_ok("validate", "run", "--json", "run.json")
    numbers = json.loads((tmp_path / "run.json").read_text())
    assert numbers["mAP"] == pytest.approx(state["progress"]["best"])
    assert [numbers[f"threshold.{name}"] for name in state["class_names"]] == state["findings"]["thresholds"]

    vitcli_ok("predict", "run", "pictures", "--json", "run_answers.json", "--csv", "run.csv")
    check_answers(table, json.loads((tmp_path / "run_answers.json").read_text()), numbers["f1_micro"])

    said = vitcli_ok("export", "run", "--to", "onnx", "--data_dir", table, "-o", "exported")
    assert "same set of labels on 100.00 %; mAP" in said
    vitcli_ok("predict", "exported", "pictures", "--csv", "exported.csv")
    ours, theirs = (
        list(csv.reader((tmp_path / name).read_text().splitlines())) for name in ("run.csv", "exported.csv")
    )
    assert [row[:3] for row in ours] == [row[:3] for row in theirs]
    assert any(row[1:] == ["", "", ""] for row in ours), "an image without any color has one row"
    vitcli_ok("validate", "exported", "--data_dir", table, "--json", "exported.json")
    exported = json.loads((tmp_path / "exported.json").read_text())
    assert exported["mAP"] == pytest.approx(numbers["mAP"], abs=0.01)
    assert exported["f1_micro"] == pytest.approx(numbers["f1_micro"], abs=0.01)


def succeed(vitcli: Callable, *words: object) -> str:
    """What the command writes."""
    done = vitcli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_resume(root: Path, vitcli_ok: Callable) -> None:
    """Continued from the middle of an epoch, the run ends with the same bytes, thresholds included."""
    shutil.copytree(root / "run", root / "again", symlinks=True)
    checkpoints = root / "again" / "checkpoints"
    for folder in checkpoints.glob("step-*"):
        if folder.name > "step-00000026":
            shutil.rmtree(folder)
    assert json.loads((checkpoints / "step-00000026" / "state.json").read_text())["findings"] == {}
    vitcli_ok("train", "--resume", "again")
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (root / run / "checkpoints" / "step-00000050" / name for run in ("run", "again"))
        assert first.read_bytes() == second.read_bytes()
    states = [json.loads((root / run / "checkpoints/best/state.json").read_text()) for run in ("run", "again")]
    assert states[0]["findings"] == states[1]["findings"] != {}


def check_answers(table: Path, answers: list[dict], f1_percent: float) -> None:
    """The answers for the validation images have the F1 that `validate` gives."""
    with table.open() as file:
        labels = {row["image_path"]: set(filter(None, row["label"].split(";"))) for row in csv.DictReader(file)
                  if row["split"] == "val"}  # fmt: skip
    found = {answer["path"]: {one["class"] for one in answer["predictions"]} for answer in answers}
    hits = sum(len(found[path] & labels[path]) for path in labels)
    total = sum(len(found[path]) + len(labels[path]) for path in labels)
    assert 100 * 2 * hits / total == pytest.approx(f1_percent)


def test_wrong_input(table: Path, tmp_path: Path, vitcli: Callable):
    done = vitcli("train", "-c", "quickstart", *options(KEYS | {"task": "classification"}))
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert "labels" in done.stderr
    assert "--task multilabel" in done.stderr
    done = vitcli("train", "-c", "quickstart", *options(KEYS | {"evaluate": "[top1]"}))
    assert done.returncode == 3
    assert "choose --evaluate multilabel" in done.stderr
    (tmp_path / "val.csv").write_text("image_path,label,split\npictures/0.png,red,train\npictures/1.png,cyan;red,val\n")
    done = vitcli("train", "-c", "quickstart", *options(KEYS | {"data_dir": "val.csv", "batch_size": 1}))
    assert done.returncode == 3
    assert "1 of 2 validation classes are not among the 1 training classes" in done.stderr


@pytest.mark.slow
def test_held_out_packed_and_on_two_ranks(table: Path, tmp_path: Path, vitcli: Callable, torchrun: Callable):
    """One table without splits; the loss of a network without BatchNorm is that of one process."""
    text = table.read_text().splitlines()
    (tmp_path / "all.csv").write_text("\n".join(line.rpartition(",")[0] for line in text[:81]) + "\n")
    keys = {
        "task": "multilabel", "model": "fvit", "depth": 1, "image_resize": 32, "global_batch_size": 8, "epoch_size": 2,
        "num_parallel_workers": 0, "log_interval": 1, "early_stopping_epochs": 2,
    }  # fmt: skip
    of_table = ["--dataset", "csv", "--data_dir", "all.csv", "--val_ratio", 0.25, *options(keys)]
    succeed(vitcli, "train", *of_table, "--batch_size", 8, "--run_dir", "one")
    two = torchrun(2, "vitcli", "train", *of_table, "--batch_size", 4, "--run_dir", "two")
    assert two.returncode == 0, two.stderr
    one, two = (metrics(tmp_path / run) for run in ("one", "two"))
    for name, rel in (("loss", 2e-5), ("mAP", 2e-3)):
        values = [line[name] for line in one if name in line]
        assert values == pytest.approx([line[name] for line in two if name in line], rel=rel)
    shutil.copy(tmp_path / "one/split.csv", tmp_path)
    succeed(
        vitcli,
        "train",
        "--dataset",
        "csv",
        "--data_dir",
        "split.csv",
        "--batch_size",
        8,
        *options(keys),
        "--dry_run",
        True,
    )
    succeed(vitcli, "data", "preview", *of_table, "--batch_size", 8, "--cache", "ram", "-o", "page.png")
    succeed(vitcli, "data", "pack", "all.csv", "--dataset", "csv", "--val_ratio", 0.25, "-o", "packed")
    of_pack = ["--dataset", "packed", "--data_dir", "packed", *options(keys)]
    succeed(vitcli, "train", *of_pack, "--batch_size", 8, "--run_dir", "pack")
    assert final_bytes_of(tmp_path / "pack") == final_bytes_of(tmp_path / "one")


def final_bytes_of(run: Path) -> bytes:
    return max((run / "checkpoints").glob("step-*")).joinpath("model.safetensors").read_bytes()
