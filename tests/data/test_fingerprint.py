"""Fingerprints of a data set: what each kind notices, and that a second start reads nothing again."""

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vitcli.data import fingerprint
from vitcli.data.datasets import build_split
from vitcli.data.decode import BadImage
from vitcli.data.fingerprint import fingerprint_of, strongest_common
from vitcli.recipe.schema import Dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vitcli" / "fingerprints"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed."""
    files, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: files.append(file.name) or digest(file, kind))
    return files


def facts(data_dir: Path, extent: fingerprint.Extent) -> dict:
    return fingerprint_of(build_split(Dataset(data_dir=data_dir), "train"), extent)


def age(folder: Path) -> None:
    """Let the files be old enough for their times to be trusted."""
    for path in folder.rglob("*.*"):
        os.utime(path, (10**9, 10**9))


def edit(file: Path) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


def edited(folder: Path) -> None:
    edit(folder / "train/cat/3.png")


def grown(folder: Path) -> None:
    (folder / "train/cat/3.png").open("ab").write(b"\0")


def renamed(folder: Path) -> None:
    (folder / "train/cat/3.png").rename(folder / "train/cat/33.png")


@pytest.mark.parametrize(
    ("change", "noticed"),
    [(age, set()), (edited, {"content"}), (grown, {"sizes", "content"}), (renamed, {"names", "sizes", "content"})],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_each_kind_notices(image_folder: Path, change, noticed: set[str]):
    extents = ("names", "sizes", "content")
    before = {extent: facts(image_folder, extent) for extent in extents}
    change(image_folder)
    found = set()
    for extent in extents:
        now = facts(image_folder, extent)
        digest = strongest_common(before[extent], now)
        found |= {extent} if before[extent][digest] != now[digest] else set()
    assert found == noticed


def test_a_second_start_reads_only_what_changed(image_folder: Path, read: list[str], cache: Path):
    age(image_folder)
    first = facts(image_folder, "content")
    assert len(read) == 24
    assert facts(image_folder, "content") == first
    assert len(read) == 24
    edit(image_folder / "train/dog/5.png")
    assert facts(image_folder, "content") != first
    assert read[24:] == [f"{image_folder}/train/dog/5.png"]
    assert facts(image_folder, "content") != first
    assert read[25:] == read[24:25], "it changed just now: its time may stay the same at the next change"
    for spoiled in (b"", b"\x93NUMPY", b"x" * 1000):
        for file in cache.iterdir():
            file.write_bytes(spoiled)
        facts(image_folder, "content")
    assert len(read) == 26 + 3 * 24
    np.save(next(cache.iterdir()), np.array([{}], dtype=object), allow_pickle=True)
    facts(image_folder, "content")
    assert len(read) == 26 + 4 * 24


def test_a_copy_has_the_same_contents(image_folder: Path, tmp_path: Path):
    copied = shutil.copytree(image_folder, tmp_path / "elsewhere" / "copy")
    before, now = facts(image_folder, "content"), facts(copied, "content")
    assert before["contents_blake2b"] == now["contents_blake2b"]


def test_archives(image_folder: Path, tmp_path: Path):
    """A zip has checksums; of a tar the file is read."""
    with tarfile.open(tmp_path / "data.tar", "w") as tar, zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
        for path in sorted(image_folder.rglob("*.png")):
            tar.add(path, str(path.relative_to(image_folder)))
            packed.write(path, str(path.relative_to(image_folder)))
    assert "contents_blake2b" not in facts(tmp_path / "data.zip", "content")
    before = facts(tmp_path / "data.tar", "content")
    content = bytearray((tmp_path / "data.tar").read_bytes())
    content[2 * 512 - 300] ^= 1
    (tmp_path / "data.tar").write_bytes(content)
    now = facts(tmp_path / "data.tar", "content")
    assert before["contents_sha256"] == now["contents_sha256"]
    assert before["contents_blake2b"] != now["contents_blake2b"]


def test_a_file_that_is_gone(image_folder: Path):
    source = build_split(Dataset(data_dir=image_folder), "train")
    source._digests = dict  # type: ignore[method-assign]
    (image_folder / "train/cat/3.png").unlink()
    with pytest.raises(BadImage, match="No such file"):
        fingerprint_of(source, "content")
