"""Files survive what the disk refuses, and each refusal is named."""

import errno
import os
import re
from pathlib import Path

import pytest

from vitcli import disk
from vitcli.disk import AppendedFile, Faults, disk_errors, tried_again, write_whole
from vitcli.errors import DiskError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, ""), r"^the disk is full: x cannot be written to .* \(it needs 2.0 MiB, .* are free\)$"),
        (OSError(errno.EDQUOT, ""), r"^the disk quota is used up: x cannot .* \(it needs 2.0 MiB\)$"),
        (OSError(errno.EFBIG, ""), r"\(ulimit -f\): x cannot .* \(it needs 2.0 MiB\)$"),
        (OSError(errno.EROFS, ""), r"^the file system is read-only: x"),
        (OSError(errno.EIO, ""), r"^the disk reports an input/output error: x"),
        (OSError(errno.ELOOP, ""), r"^Too many levels of symbolic links: x"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), r"^the disk is full: x"),
    ],
)
def test_each_refusal_has_its_words(tmp_path: Path, error: Exception, words: str):
    with pytest.raises(DiskError) as found, disk_errors("x", tmp_path, num_bytes=2 * 2**20):
        raise error
    assert re.search(words, found.value.message)
    assert found.value.exit_code == 74


def test_other_errors_stay_what_they_are(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), disk_errors("x", tmp_path):
        1 / 0  # noqa: B018


def test_a_folder_that_is_gone(tmp_path: Path):
    with pytest.raises(DiskError, match="is gone: it was deleted or moved"):
        write_whole(tmp_path / "run" / "a.json", "{}")


@pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 4), (errno.EINTR, 4), (errno.ENOSPC, 1), (errno.EROFS, 1)])
def test_what_may_pass_is_tried_three_times_more(monkeypatch, number: int, tries: int):
    monkeypatch.setattr(disk, "_WAITS", (0, 0, 0))
    count = []

    def attempt():
        count.append(1)
        raise OSError(number, "")

    with pytest.raises(OSError, match=str(number)):
        tried_again(attempt)
    assert len(count) == tries


def test_a_refused_line_is_written_with_the_next(tmp_path: Path, monkeypatch):
    """The disk takes half of the second line, then nothing; the file never has a part of a line."""
    faults = Faults()
    file = AppendedFile(tmp_path / "a", faults)
    file.append(b"one\n")
    real, full = open, [True]

    class HalfFull:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            if full[0] and len(content) < 4:
                raise OSError(errno.ENOSPC, "")
            return self.file.write(content[:2] if full[0] else content)

    monkeypatch.setattr(disk, "open", lambda *a, **k: HalfFull(real(*a, **k)), raising=False)
    file.append(b"two\n")
    assert (tmp_path / "a").read_bytes() == b"one\n"
    assert faults
    assert "the disk is full: a cannot be written" in str(faults.take())
    assert not faults
    full[0] = False
    file.append(b"three\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\n"


def test_the_old_content_stays_until_the_new_is_complete(tmp_path: Path, monkeypatch):
    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "")))
    with pytest.raises(DiskError, match="a cannot be written"):
        write_whole(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
