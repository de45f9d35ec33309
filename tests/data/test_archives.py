"""Archives that are damaged, hostile or of another kind: each is refused, or what is left out is counted."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.support.data_sets import Files, write_tar, write_zip
from tests.support.images import encoded, photo
from vitcli.data.datasets import build_splits
from vitcli.data.random_access import large_file
from vitcli.data.tar_index import tar_members
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset

PNG = encoded(photo(8, 8), "PNG")
FILES: Files = {f"{split}/{name}/1.png": PNG for split in ("train", "val") for name in ("cat", "dog")}


def opened(file: Path, **keys):
    return build_splits(Dataset(dataset="archive", data_dir=file, **keys))


def tar_with(file: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """FILES and further members: name, tar's type, contents."""
    write_tar(file, FILES)
    with tarfile.open(file, "a") as archive:
        for name, kind, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(member, io.BytesIO(data))
    return file


def test_members_that_are_not_files_or_lead_elsewhere_are_counted(tmp_path: Path):
    hostile = [
        ("train/cat/2.png", tarfile.SYMTYPE, b""), ("train/cat/3.png", tarfile.LNKTYPE, b""),
        ("train/cat/4.png", tarfile.CHRTYPE, b""), ("train/cat/5.png", tarfile.FIFOTYPE, b""),
        ("../train/cat/6.png", tarfile.REGTYPE, PNG), ("/train/cat/7.png", tarfile.REGTYPE, PNG),
        ("train/cat/.8.png", tarfile.REGTYPE, PNG), ("train/cat/9.zip", tarfile.REGTYPE, b"PK"),
    ]  # fmt: skip
    splits = opened(tar_with(tmp_path / "a.tar", *hostile))
    assert splits.train.class_counts() == {"cat": 1, "dog": 1}
    notes = "; ".join(splits.train.notes)
    assert "2 device, 2 link, 2 unsafe name" in notes
    assert "1 .zip, 1 hidden" in notes


def test_links_and_hostile_names_in_a_zip(tmp_path: Path):
    write_zip(tmp_path / "a.zip", FILES | {"../x.png": PNG, "/y.png": PNG, "__MACOSX/train/._1.png": b"x"})
    link = zipfile.ZipInfo("train/cat/2.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr(link, "/etc/passwd")
    splits = opened(tmp_path / "a.zip")
    assert splits.train.class_counts() == {"cat": 1, "dog": 1}
    assert any("1 link, 2 unsafe name" in note for note in splits.train.notes)


def test_names_that_are_not_utf8(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        for split in ("train", "val"):
            member = tarfile.TarInfo(f"{split}/caf\xe9/1.png")
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
    splits = opened(tmp_path / "a.tar")
    assert splits.class_names == ["caf\\xe9"]  # as of a folder
    assert splits.train.load(0).size == (8, 8)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """A tar with other bytes in the header at `at // 512`, and the checksum for them."""
    start = at // 512 * 512
    header = bytearray(data[start : start + 512])
    header[at - start : at - start + len(new)] = new
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + 512 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: 512 * 5 + 100], r"is truncated"),
        (lambda data: data[: 512 + 20], r"is truncated: 'train/cat/1\.png'"),
        (lambda data: changed(data, 124, b"\x80\0\0\0\x7f" + b"\xff" * 7), r"is truncated: .* bytes would end after"),
        (lambda data: changed(data, 124, b"\xff" * 12), r"is truncated"),
        (lambda data: changed(data, 124, b"99999999999\0"), r"is truncated"),
        (lambda data: data[:512] + b"x" * (len(data) - 512), r"is damaged: there is no header of a member at byte \d"),
        (lambda data: b"x" * 4096, "is neither a tar nor a zip archive"),
        (lambda data: b"", "has no files in it"),
        (gzip.compress, r"is compressed \(gzip\): an image in it cannot be read without everything before it"),
        (lambda data: data[:-1024] + data, r"two members of the name|no folder"),
    ],
)
def test_damaged_tars_are_refused(damage, said: str, tmp_path: Path):
    write_tar(tmp_path / "a.tar", FILES)
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512 + 1024)
    (tmp_path / "a.tar").write_bytes(damage(data))
    with pytest.raises(DataError, match=said):
        opened(tmp_path / "a.tar")


def test_pax_headers_that_are_damaged(tmp_path: Path):
    for header in (b"99 path=x\n", b"x path=x\n", b"0 path=x\n", b"5"):
        tar_with(tmp_path / "a.tar", ("header", tarfile.XHDTYPE, header), ("x.png", tarfile.REGTYPE, PNG))
        with pytest.raises(DataError, match="there is no pax header at byte"):
            opened(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_is_that_of_tarfile(kind: int, tmp_path: Path):
    names = ["a.png", "d/" * 40 + "b.png", "é.png", "c" * 90 + "/" + "d" * 90]
    names += [] if kind == tarfile.USTAR_FORMAT else ["e" * 300]
    file = write_tar(tmp_path / "a.tar", {name: name.encode() * 7 for name in names}, kind)
    with tarfile.open(file) as archive:
        expected = [(member.name, member.offset_data, member.size) for member in archive]
    assert [tuple(member) for member in tar_members(large_file(file), Counter())] == expected


def test_damaged_zips_are_refused(tmp_path: Path):
    file = write_zip(tmp_path / "a.zip", FILES)
    whole = file.read_bytes()
    for data in (whole[:-30], whole[:40], b"PK\3\4" + bytes(100), whole.replace(b"PK\1\2", b"PK\1\7")):
        file.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read as a zip archive"):
            opened(file)
    write_zip(file, FILES, zipfile.ZIP_STORED)
    file.write_bytes(file.read_bytes().replace(PNG, PNG[:-1] + b"x"))
    with pytest.raises(DataError, match=r"'cat/1\.png': .* size or checksum of a member are wrong"):
        opened(file).train.load(0)


def test_zips_that_cannot_be_read_at_random(tmp_path: Path):
    file = write_zip(tmp_path / "a.zip", FILES, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="is compressed by method 14"):
        opened(file)
    data = bytearray(write_zip(file, FILES).read_bytes())
    directory = data.index(b"PK\1\2")
    data[directory + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        opened(file)


def test_two_members_of_one_name(tmp_path: Path):
    with pytest.raises(DataError, match=r"has two members of the name 'train/cat/1\.png'"):
        opened(tar_with(tmp_path / "a.tar", ("./train/cat/1.png", tarfile.REGTYPE, PNG)))


def test_a_bomb_is_not_expanded(tmp_path: Path):
    """64 MiB of zeros in some kilobytes: by its true size refused, and with a false one cut off."""
    file = write_zip(tmp_path / "a.zip", FILES | {"train/cat/2.png": bytes(64 << 20)})
    keys = {"max_image_pixels": 10_000}
    with pytest.raises(DataError, match=r"67,108,864 bytes, more than"):
        opened(file, **keys).train.load(1)
    data = bytearray(file.read_bytes())
    directory = data.rindex(b"PK\1\2")
    data[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    file.write_bytes(data)
    train = opened(file, **keys).train
    tracemalloc.start()
    with pytest.raises(DataError, match=r"size or checksum of a member are wrong"):
        train.load(1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_zip64(tmp_path: Path, monkeypatch):
    """What an archive of more than 65,535 members or 4 GiB has, with smaller limits."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    monkeypatch.undo()
    assert file.read_bytes().count(b"PK\6\6") == 1  # the record that only zip64 has
    assert opened(file).train.load(1).tobytes() == photo(8, 8).tobytes()


def test_a_folder_without_archives(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no train\.zip or train\.tar in"):
        opened(tmp_path)
    write_tar(tmp_path / "shard.tar", {})
    with pytest.raises(DataError) as error:
        build_splits(Dataset(data_dir=tmp_path))
    assert "--dataset webdataset" in error.value.help
