"""A listing that is remembered: used while the folders are the same, and never once they are not."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitcli.data import find_images, listings
from vitcli.data.find_images import images_below
from vitcli.data.listings import listings_in


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    """Three images, at two depths, of two odd names; what is left out; and folders that changed long ago."""
    monkeypatch.setattr(listings, "SMALLEST", 1)
    root = tmp_path / "tree"
    (root / "deep" / "deeper").mkdir(parents=True)
    for name in (b"a.jpg", b"deep/line\nbreak.png", b"deep/deeper/\xff\xfe.jpg", b"deep/notes.txt"):
        (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(b"x")
    settle(root)
    return root


def settle(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1e9, 1e9))


def found(root: Path, file: Path, monkeypatch) -> tuple[list[str], Counter[str], int]:
    """Images, what was left out, and how many folders were read."""
    num_read = 0

    def counted(folder):
        nonlocal num_read
        num_read += 1
        return real(folder)

    real = find_images.entries
    ignored: Counter[str] = Counter()
    with monkeypatch.context() as patch, listings_in(file):
        patch.setattr(find_images, "entries", counted)
        return images_below(root, "", ignored), ignored, num_read


def test_folders_are_read_once(tree: Path, tmp_path: Path, monkeypatch):
    first = found(tree, tmp_path / "list", monkeypatch)
    assert first[0] == ["a.jpg", "deep/deeper/\udcff\udcfe.jpg", "deep/line\nbreak.png"]
    assert first[1:] == (Counter({".txt": 1}), 3)
    assert found(tree, tmp_path / "list", monkeypatch) == (*first[:2], 0)


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "new folder", "folder removed"])
def test_a_change_is_seen(tree: Path, tmp_path: Path, monkeypatch, change: str):
    before = found(tree, tmp_path / "list", monkeypatch)[0]
    if change == "added":
        (tree / "deep" / "deeper" / "b.jpg").write_bytes(b"x")
    elif change == "removed":
        (tree / "a.jpg").unlink()
    elif change == "renamed":
        (tree / "a.jpg").rename(tree / "b.jpg")
    elif change == "new folder":
        (tree / "deep" / "new").mkdir()
        (tree / "deep" / "new" / "c.jpg").write_bytes(b"x")
    else:
        for file in (tree / "deep" / "deeper").iterdir():
            file.unlink()
        (tree / "deep" / "deeper").rmdir()
    after, _, num_read = found(tree, tmp_path / "list", monkeypatch)
    assert after != before
    assert num_read > 0
    assert after == images_below(tree, "", Counter())


def test_a_folder_that_has_just_changed_is_not_trusted(tree: Path, tmp_path: Path, monkeypatch):
    """It could change again at the same time: file systems count it in steps."""
    os.utime(tree / "deep")
    found(tree, tmp_path / "list", monkeypatch)
    assert found(tree, tmp_path / "list", monkeypatch)[2] == 3


@pytest.mark.parametrize("damage", ["empty", "truncated", "other names", "no metadata"])
def test_a_damaged_file_is_no_listing(tree: Path, tmp_path: Path, monkeypatch, damage: str):
    file = tmp_path / "list"
    first = found(tree, file, monkeypatch)
    content = file.read_bytes()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "truncated":
        file.write_bytes(content[:-5])
    elif damage == "other names":
        file.write_bytes(content.replace(b"a.jpg\0", b"a\0jpg\0"))
    else:
        file.write_bytes(content.replace(b"listings", b"lustings"))
    assert found(tree, file, monkeypatch) == first


def test_few_images_leave_no_file(tree: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(listings, "SMALLEST", 4)
    found(tree, tmp_path / "list", monkeypatch)
    assert not (tmp_path / "list").exists()


@pytest.mark.parametrize("late", [0.0, 9.0])
def test_sizes_come_in_order_however_they_are_asked_for(tmp_path: Path, monkeypatch, late: float):
    """By several threads, as on a network file system, or one after the other."""
    monkeypatch.setattr(find_images, "_LATE", late)
    monkeypatch.setattr(find_images, "_AT_ONCE", 3)
    monkeypatch.setattr(find_images, "_THREADS", 2)
    names = [f"{number}.jpg" for number in range(70)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(number))
        os.utime(tmp_path / name, ns=(number, number))
    used = []
    start = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *args: used.append(args) or start(*args))
    assert list(find_images.sizes_and_times(tmp_path, names)) == [(number, number) for number in range(70)]
    assert bool(used) == (late == 0)
