"""A user's mistake ends in words, with the right exit code and no traceback, and nothing is lost by it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.commands import environment, options, python_m
from vitcli.models.registry import create_model

TINY = options({"image_resize": 32, "batch_size": 8, "epoch_size": 1, "num_parallel_workers": 0})


def refused(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^error: ", done.stderr, re.M)
    for word in words:
        assert word in done.stderr


def test_folder_trains(tmp_path: Path, image_folder: Path, vitcli):
    """The good case that the bad ones are variations of."""
    done = vitcli("train", "--data_dir", image_folder, *TINY, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "data.json").read_text())["class_names"] == ["cat", "dog"]
    assert "2 classes" in done.stdout
    assert "vitcli validate --ckpt_path run" in done.stdout


def no_data_dir(root: Path) -> list:
    return []


def missing_data_dir(root: Path) -> list:
    return ["--data_dir", root / "nowhere"]


def empty_class(root: Path) -> list:
    (root / "train" / "emu").mkdir()
    return ["--data_dir", root]


def class_only_in_val(root: Path) -> list:
    shutil.copytree(root / "val" / "dog", root / "val" / "fox")
    return ["--data_dir", root]


def no_val(root: Path) -> list:
    shutil.rmtree(root / "val")
    return ["--data_dir", root]


def unreadable_image(root: Path) -> list:
    (root / "train" / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return ["--data_dir", root]


def other_num_classes(root: Path) -> list:
    return ["--data_dir", root, "--num_classes", 10]


def batch_too_large(root: Path) -> list:
    return ["--data_dir", root, "--batch_size", 64]


BAD_DATA = [
    (no_data_dir, 2, "--data_dir"),
    (missing_data_dir, 3, "nowhere"),
    (empty_class, 3, "emu"),
    (class_only_in_val, 3, "fox"),
    (no_val, 3, "val"),
    (unreadable_image, 3, "cat/0.png"),
    (other_num_classes, 3, "10 classes"),
    (batch_too_large, 3, "batch_size"),
]


@pytest.mark.parametrize(("spoil", "code", "word"), BAD_DATA, ids=lambda x: getattr(x, "__name__", ""))
def test_bad_data(tmp_path: Path, image_folder: Path, vitcli, spoil, code: int, word: str):
    done = vitcli("train", *TINY, *spoil(image_folder))
    refused(done, code, word)
    runs = list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else []
    assert all((run / "recipe.yaml").exists() for run in runs), "no empty run folder is left behind"


def test_skipped_images_are_counted_and_listed(tmp_path: Path, image_folder: Path, vitcli):
    unreadable_image(image_folder)
    words = ["train", *TINY, "--data_dir", image_folder, "--on_bad_image", "skip", "--epoch_size", 2]
    done = vitcli(*words, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "unreadable images" in done.stdout
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert {entry["name"] for entry in listed} == {"cat/0.png"}
    (image_folder / "train" / "dog" / "1.png").write_bytes(b"")
    refused(vitcli(*words, "--run_dir", "again"), 3, "max_bad_ratio")


def test_evaluation_never_skips(tmp_path: Path, image_folder: Path, vitcli):
    (image_folder / "val" / "cat" / "2.png").write_bytes(b"GIF89a")
    refused(vitcli("train", *TINY, "--data_dir", image_folder, "--on_bad_image", "skip"), 3, "val/cat/2.png")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """FastViT-T8 with two classes."""
    path = tmp_path / "t8.safetensors"
    save_file(create_model("fastvit_t8", num_classes=2).state_dict(), path)
    return path


def test_weights_of_another_architecture(tmp_path: Path, image_folder: Path, weights: Path, vitcli):
    done = vitcli("train", *TINY, "--data_dir", image_folder, "--ckpt_path", weights, "--model", "fastvit_t12")
    refused(done, 2, "fastvit_t8")
    refused(
        vitcli("validate", "--ckpt_path", weights, "--data_dir", image_folder, "--model", "fastvit_s12"),
        2,
        "fastvit_t8",
    )


def test_truncated_weights(tmp_path: Path, image_folder: Path, weights: Path, vitcli):
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(vitcli("train", *TINY, "--data_dir", image_folder, "--ckpt_path", weights), 3, "t8.safetensors")
    refused(vitcli("train", *TINY, "--data_dir", image_folder, "--ckpt_path", tmp_path / "no.pth"), 3, "no.pth")


def test_pickled_code_is_not_run(tmp_path: Path, image_folder: Path, vitcli):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"state_dict": Attack()}, tmp_path / "evil.pth")
    refused(vitcli("validate", "--data_dir", image_folder, "--ckpt_path", "evil.pth"), 2, "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_another_head_is_replaced_in_training_and_refused_in_validation(image_folder: Path, weights: Path, vitcli):
    shutil.copytree(image_folder / "train" / "dog", image_folder / "train" / "eel")
    done = vitcli("train", *TINY, "--data_dir", image_folder, "--ckpt_path", weights)
    assert done.returncode == 0, done.stderr
    assert "head" in done.stdout
    shutil.copytree(image_folder / "val" / "dog", image_folder / "val" / "eel")
    done = vitcli("validate", "--image_resize", 32, "--data_dir", image_folder, "--ckpt_path", weights)
    refused(done, 2, "3 classes")


def test_validate_takes_preprocessing_and_classes_from_the_checkpoint(tmp_path: Path, image_folder: Path, vitcli):
    assert vitcli("train", *TINY, "--data_dir", image_folder, "--run_dir", "run").returncode == 0
    shutil.rmtree(image_folder / "val" / "cat")  # class indices must not shift
    done = vitcli("validate", "-c", "fastvit_t8", "--ckpt_path", "run", "--data_dir", image_folder)
    assert done.returncode == 0, done.stderr
    assert "`image_resize`: the checkpoint was trained with 32" in done.stdout
    assert "│ 6" in done.stdout
    refused(vitcli("validate", "--ckpt_path", "run", "--json", "no/such/folder/x.json"), 2, "cannot write no/such")
    shutil.copytree(image_folder / "val" / "dog", image_folder / "val" / "yak")
    refused(vitcli("validate", "--ckpt_path", "run"), 3, "yak")


def test_output_not_writable(tmp_path: Path, image_folder: Path, vitcli):
    (tmp_path / "file").write_text("")
    refused(vitcli("train", *TINY, "--data_dir", image_folder, "--run_dir", "file"), 2, "cannot write to file")
    refused(vitcli("train", *TINY, "--data_dir", image_folder, "--run_dir", "file/run"), 2, "cannot write to file/run")
    refused(
        vitcli("train", *TINY, "--data_dir", image_folder, "--run_dir", "/proc/run"), 2, "cannot write to /proc/run"
    )


def test_changed_data_is_refused_on_resume(tmp_path: Path, image_folder: Path, vitcli):
    assert vitcli("train", *TINY, "--data_dir", image_folder, "--run_dir", "run").returncode == 0
    copied = shutil.copytree(image_folder, tmp_path / "copy", copy_function=shutil.copyfile)
    done = vitcli("train", "--resume", "run", "--data_dir", copied)
    assert done.returncode == 0, done.stderr
    assert "copied or touched" in done.stdout
    Image.new("RGB", (64, 64), (9, 8, 7)).save(copied / "train" / "cat" / "0.png")
    refused(vitcli("train", "--resume", "run", "--data_dir", copied), 4, "train: the same number of images, but other")
    (copied / "val" / "dog" / "0.png").unlink()
    refused(vitcli("train", "--resume", "run", "--data_dir", copied), 4, "val: 12 images before, 11 now")


def test_an_edit_of_the_same_size_is_refused_with_contents(tmp_path: Path, image_folder: Path, vitcli):
    """`data_fingerprint` may be changed on resume; what both sides have is compared."""
    keys = [*TINY, "--data_dir", image_folder, "--model", "fvit"]
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert vitcli("train", *keys, "--data_fingerprint", "content", "--run_dir", "run", **cache).returncode == 0
    assert vitcli("train", "--resume", "run", **cache).returncode == 0
    image = image_folder / "train" / "cat" / "0.png"
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    refused(vitcli("train", "--resume", "run", **cache), 4, "train: the same files and sizes, but other contents")
    weaker = vitcli("train", "--resume", "run", "--data_fingerprint", "names", **cache)
    assert weaker.returncode == 0, weaker.stderr
    assert "their names are the same" in weaker.stdout


def test_exchanged_labels_are_refused_on_resume(image_folder: Path, vitcli):
    """The same images and as many of each class, but two have each other's label."""
    files = sorted(image_folder.glob("*/*/*.png"))
    rows = {f"{file.relative_to(image_folder)},{file.parts[-3]}": file.parent.name for file in files}
    table = image_folder / "images.csv"

    def write_table() -> None:
        lines = [f"{image},{label}" for image, label in rows.items()]
        table.write_text("\n".join(["path,split,label", *lines]) + "\n")

    write_table()
    keys = [*TINY, "--model", "fvit", "--dataset", "csv", "--data_dir", table]
    assert vitcli("train", *keys, "--run_dir", "run").returncode == 0
    rows |= {"train/cat/0.png,train": "dog", "train/dog/0.png,train": "cat"}
    write_table()
    refused(vitcli("train", "--resume", "run"), 4, "train: the same files, but other labels")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path, vitcli):
    (tmp_path / "x").touch()
    for command in ("train", "validate"):
        words = [command, "-c", "quickstart", "--device", "cuda", "--ckpt_path", "x"]
        refused(vitcli(*words), 2, "device cuda was asked for", "--device auto")
    refused(vitcli("train", "-c", "quickstart", "--amp", "fp16"), 2, "fp16 needs a GPU")
    refused(vitcli("train", "-c", "quickstart", "--amp", "fp8"), 2, "fp8 needs an NVIDIA GPU", "--amp bf16")
    assert not list((tmp_path / "runs").glob("*"))


def test_two_processes_in_one_run(tmp_path: Path, image_folder: Path, vitcli):
    words = ["train", *TINY, "--data_dir", image_folder, "--run_dir", "run"]
    assert vitcli(*words).returncode == 0
    holder = "import fcntl, time; f = open('run/.lock', 'a+'); fcntl.lockf(f, 2); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        refused(vitcli("train", "--resume", "run"), 2, "in use by process")
        process.kill()
    assert vitcli("train", "--resume", "run").returncode == 0


def test_reader_goes_away(tmp_path: Path, image_folder: Path):
    """`vitcli train … | head -1` trains to the end."""
    command = python_m("vitcli", "train", *TINY, "--data_dir", image_folder, "--run_dir", tmp_path / "run")
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_divergence_ends_the_run_before_it_reaches_the_weights(tmp_path: Path, vitcli):
    words = ["--lr", 1e30, "--warmup_epochs", 0, "--epoch_size", 3, "--opt", "sgd", "--log_interval", 1, "--seed", 1]
    done = vitcli("train", "-c", "quickstart", *words, "--run_dir", "run", "--ckpt_save_steps", 1)
    refused(done, 5, "NaN or infinite", "lower lr")
    from safetensors.torch import load_file

    for file in (tmp_path / "run").rglob("model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values() if value.is_floating_point())
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "diverged"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.slow
def test_full_disk(tmp_path: Path):
    """The second checkpoint does not fit: the first stays, nothing half-written is left, exit code 74."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["train", "-c", "quickstart", *options({"num_samples": 128, "epoch_size": 2, "run_dir": disk / "run"})]
    command = " ".join(map(str, [sys.executable, "-m", "vitcli", *words]))
    mounted = f"mount -t tmpfs -o size=60m none {disk} && {command}; code=$?; find {disk}; exit $code"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no permission to mount")
    assert done.returncode == 74, done.stderr
    assert "the disk is full" in done.stderr
    assert "MiB are free" in done.stderr
    assert "step-00000002/MANIFEST.json" in done.stdout
    assert "step-00000004" not in done.stdout
    assert ".writing" not in done.stdout


def test_images_of_every_mode_train(image_folder: Path, vitcli):
    for i, mode in enumerate(("L", "RGBA", "P", "1", "CMYK", "LA")):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (17 + i, 9)).save(image_folder / "train" / "cat" / f"{mode}.{suffix}")
    done = vitcli("train", *TINY, "--data_dir", image_folder)
    assert done.returncode == 0, done.stderr
