"""The same training from a folder, from a pack of it, from memory, and from a pack after an interruption."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import options
from tests.support.images import photo

#: everything random switched on; 20 images in steps of 4, 2 epochs
TINY = {
    "model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 4, "epoch_size": 2, "num_parallel_workers": 0,
    "log_interval": 1, "ema": True, "ckpt_save_steps": 3, "auto_augment": "rand-m9-mstd0.5-inc1", "mixup": 0.8,
    "cutmix": 1.0, "re_prob": 0.5, "re_mode": "pixel", "interpolation": "random",
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """JPEG files, one of them gray, and PNG."""
    for split, count in (("train", 10), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = photo(50 + number, 40, number + 7 * len(name + split))
                picture = picture.convert("L") if number == 2 else picture
                picture.save(tmp_path / "photos" / split / name / f"{number}.{('jpg', 'png')[number % 4 == 3]}")
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_pack_trains_like_its_folder_to_the_last_bit(tmp_path: Path, photos: Path, vitcli: Callable):
    def trained(run: str, *words: object) -> dict[str, bytes]:
        done = vitcli("train", *options(TINY), "--run_dir", run, *words)
        assert done.returncode == 0, done.stderr
        return final_bytes(tmp_path / run)

    folder = trained("folder", "--data_dir", photos)
    for store in ("files", "raw"):
        packed = vitcli("data", "pack", photos, "-o", store, "--store", store)
        assert packed.returncode == 0, packed.stderr
        assert "train  20 images" in packed.stdout
        assert "val  6 images" in packed.stdout
        assert (
            trained(f"from {store}", "--dataset", "packed", "--data_dir", store, "--num_parallel_workers", 2) == folder
        )
    assert trained("ram", "--data_dir", photos, "--cache", "ram", "--num_parallel_workers", 1) == folder
    assert metrics(tmp_path / "from raw")[:-1] == metrics(tmp_path / "folder")[:-1]

    run = shutil.copytree(tmp_path / "from files", tmp_path / "run", symlinks=True)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if checkpoint.name > "step-00000003":
            shutil.rmtree(checkpoint)
    resumed = vitcli("train", "--resume", run, "--num_parallel_workers", 1, "--cache", "ram")
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing at step 3" in resumed.stdout
    assert final_bytes(run) == folder


def test_class_folders_without_splits_keep_their_classes(tmp_path: Path, photos: Path, vitcli: Callable):
    packed = vitcli("data", "pack", photos / "train", "-o", "new")
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout.splitlines()[-1].endswith("--data_dir new --val_ratio 0.2")
    done = vitcli("train", *options(TINY), "--dataset", "packed", "--data_dir", "new", "--val_ratio", 0.2)
    assert done.returncode == 0, done.stderr
    assert "16 + 4 images, 2 classes" in done.stdout


def test_what_cannot_be_packed_is_said(tmp_path: Path, photos: Path, vitcli: Callable):
    (photos / "train/cat/0.jpg").write_bytes(b"")
    (photos / "train/dog/1.jpg").write_text("text")
    failed = vitcli("data", "pack", photos, "-o", "new")
    assert failed.returncode == 3
    assert "2 of 20 images cannot be read" in failed.stderr
    assert "0.jpg: the file is empty" in failed.stderr
    assert "1.jpg: not an image of a known format" in failed.stderr
    refused = vitcli("train", *options(TINY), "--dataset", "packed", "--data_dir", "new")
    assert refused.returncode == 3
    assert "new/train is not complete" in refused.stderr
    skipped = vitcli("data", "pack", photos, "-o", "new", "--on_bad_image", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert "train  18 images" in skipped.stdout
    assert "2 left out" in skipped.stdout
    again = vitcli("data", "pack", photos, "-o", "new")
    assert again.returncode == 2
    assert "holds packed data already" in again.stderr
    wrong = vitcli("train", *options(TINY), "--dataset", "packed", "--data_dir", photos)
    assert wrong.returncode == 3
    assert "is not packed data" in wrong.stderr


def test_bench_data_measures_all_ways(tmp_path: Path, photos: Path, vitcli: Callable):
    assert vitcli("data", "pack", photos, "-o", "raw", "--store", "raw").returncode == 0
    words = ["bench", "data", photos, "raw", "--image_resize", 32, "--num_images", 8, "--rounds", 1, "--workers", "1"]
    done = vitcli(*words, "--json", "rows.json")
    assert done.returncode == 0, done.stderr
    for name in ("decoding alone, by Pillow", "timm: dataset and transform", f"vitcli: {photos}", "vitcli: raw"):
        assert name in done.stdout
    assert (tmp_path / "rows.json").exists()
    missing = vitcli("bench", "data", "nowhere")
    assert missing.returncode == 3
    assert "nowhere" in missing.stderr
