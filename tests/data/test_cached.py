"""Images in memory: the same tensors as without, in every process, and no more than the memory holds."""

import multiprocessing
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from tests.data.test_pack import batches
from tests.support.commands import ROOT, environment
from tests.support.images import photo
from vitcli.data.cached import _BLOCK, CachedImages
from vitcli.data.datasets import build_split
from vitcli.data.decode import BadImage
from vitcli.data.pixel_format import PixelFormat
from vitcli.data.shared_bytes import SharedBytes
from vitcli.data.source import ArrayImages
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset


@pytest.fixture
def photos(tmp_path):
    for number in range(12):
        folder = tmp_path / f"train/class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = photo(40 + number, 30 + 2 * number, number)
        (picture.convert("L") if number % 3 == 0 else picture).save(folder / f"{number}.{('jpg', 'png')[number % 2]}")
    return build_split(Dataset(data_dir=tmp_path), "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_to_the_last_bit(photos, workers):
    cached = CachedImages(photos, PixelFormat(3))
    assert all(map(torch.equal, batches(cached, workers), batches(photos)))
    assert [cached.name(index) for index in range(12)] == [photos.name(index) for index in range(12)]
    assert cached.fingerprint() == photos.fingerprint()
    part = np.array([7, 2])
    assert cached.select(part).fingerprint() == photos.select(part).fingerprint()
    assert cached.num_bytes == sum(np.asarray(photos.load(index)).size for index in range(12))


def test_more_than_one_block(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (2 * _BLOCK + 3, 2, 2), dtype=np.uint8)
    cached = CachedImages(ArrayImages(pixels, None, None, "noise"), PixelFormat(1))
    assert all(np.array_equal(cached.load(row), pixels[row]) for row in (0, _BLOCK - 1, _BLOCK, 2 * _BLOCK + 2))


def test_bad_images_are_bad_when_they_are_asked_for(photos, tmp_path):
    (tmp_path / "train/class0/4.jpg").write_bytes(b"text")
    cached = CachedImages(photos, PixelFormat(3))
    (bad,) = [index for index in range(12) if photos.name(index) == "class0/4.jpg"]
    with pytest.raises(BadImage, match="not an image of a known format"):
        cached.load(bad)
    assert len(cached.bad) == 1


def test_too_large_a_set_is_refused_early(photos):
    with pytest.raises(DataError, match="more than half of what is available") as caught:
        CachedImages(photos, PixelFormat(3), available=lambda: 40_000)
    assert "cache: none" in caught.value.help
    CachedImages(photos, PixelFormat(3), available=lambda: 200_000)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_share_the_memory(method, tmp_path):
    """What a child writes, its parent sees."""
    program = textwrap.dedent(f"""
        import multiprocessing
        from vitcli.data.shared_bytes import SharedBytes

        def write(shared):
            shared.array[:3] = 7, 8, 9

        if __name__ == "__main__":
            shared = SharedBytes(1000)
            child = multiprocessing.get_context({method!r}).Process(target=write, args=(shared,))
            child.start()
            child.join()
            print(shared.array[:4].tolist(), shared.array.size)
    """)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, tmp_path / "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(PYTHONPATH=str(ROOT)), check=True)
    assert done.stdout == "[7, 8, 9, 0] 1000\n"


def test_no_bytes_are_possible():
    assert SharedBytes(0).array.size == 0
