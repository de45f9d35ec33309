"""Finds the files in a tar archive without reading them: one header of 512 bytes after the other.

Formats: ustar, GNU (long names, sizes of 8 GiB and more) and pax (`path`, `size`), as by POSIX.1-2017, "pax". Python's
own tarfile would make an object of a kilobyte for each member, and shares one position in the file among all threads.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from vitcli.data.members import Members, check_size, damaged
from vitcli.data.random_access import LargeFile
from vitcli.errors import DataError

_BLOCK = 512
#: of a name or a pax header; longer ones are not read
_MOST_HEADER = 1 << 20
#: what tar's type of a member is called if it is not a regular file; None: nothing that counts
_OTHER_KINDS = {
    b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "device", b"5": None, b"S": "sparse file",
    b"g": None, b"D": None, b"M": "part of a file", b"V": None,
}  # fmt: skip
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class TarMember(NamedTuple):
    """A regular file in an archive; `offset` and `size` of its contents in bytes."""

    name: str
    offset: int
    size: int


class TarMembers(Members):
    """The files in a tar archive. Tars directly in it, as in ImageNet's, count as folders of the same name."""

    def read(self, number: int, most: int) -> bytes:
        offset, size = self.numbers[number].tolist()
        check_size("it has", size, most)
        return self.file.read(offset, size)

    def _identity(self, number: int) -> str:
        return f"{self.names[number]} {self.numbers[number, 1]}"


def read_tar(file: LargeFile) -> TarMembers:
    """The index of `file`; DataError if it is no tar archive, is damaged or compressed."""
    ignored: Counter[str] = Counter()
    rows = ((member.name, (member.offset, member.size)) for member in _with_nested(file, ignored))
    return TarMembers(file, rows, ignored)


def _with_nested(file: LargeFile, ignored: Counter[str]) -> Iterator[TarMember]:
    for member in tar_members(file, ignored):
        folder, suffix = os.path.splitext(member.name)
        if suffix.lower() != ".tar":
            yield member
            continue
        for inner in tar_members(file, ignored, member.offset, member.offset + member.size):
            yield inner._replace(name=f"{folder}/{inner.name.lstrip('/')}")


def tar_members(file: LargeFile, ignored: Counter[str], start: int = 0, end: int | None = None) -> Iterator[TarMember]:
    """The regular files from `start` to `end` of `file`, in their order. `ignored` counts other members by kind.

    Raises:
        DataError: there is no tar archive, it is compressed, or it ends before its last member does.
    """
    position, end = start, file.size if end is None else end
    given: dict[str, str] = {}  # what a preceding header says of the next member
    while position < end:
        header = file.read(position, min(_BLOCK, end - position))
        if not header.strip(b"\0"):
            return
        _check_header(file, header, position, start)
        kind, size = header[156:157], _number(header[124:136])
        size = int(given["size"]) if kind not in b"xgLK" and given.get("size", "").isdecimal() else size
        contents, position = position + _BLOCK, position + _BLOCK + -(-max(size, 0) // _BLOCK) * _BLOCK
        if size < 0 or contents + size > end:
            name = given.get("path") or _name(header)
            raise damaged(file, f"is truncated: {name!r} of {size:,} bytes would end after the archive does")
        if kind in b"xLK":
            given |= _headers_of_next(file, kind, contents, size)
            continue
        name = given.get("path") or _name(header)
        if kind in (b"0", b"\0", b"7") and "GNU.sparse.major" not in given:
            if not name.endswith("/"):  # a folder, in the oldest format
                yield TarMember(name, contents, size)
        elif reason := _OTHER_KINDS.get(kind, "member of unknown type"):
            ignored[reason] += 1
        given = {}


def _check_header(file: LargeFile, header: bytes, position: int, start: int) -> None:
    """DataError unless the bytes are a header with a right checksum."""
    if len(header) == _BLOCK and _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 32:
        return
    for begins, name in _COMPRESSED.items():
        if position == 0 and header.startswith(begins):
            reason = f"is compressed ({name}): an image in it cannot be read without everything before it"
            raise DataError(f"{file} {reason}", help="decompress it to a .tar; images hardly become larger by that")
    if position == start:
        raise DataError(f"{file} is neither a tar nor a zip archive", help="give a .tar or .zip file, or unpack it")
    what = "is truncated" if len(header) < _BLOCK else "is damaged"
    raise damaged(file, f"{what}: there is no header of a member at byte {position:,}")


def _headers_of_next(file: LargeFile, kind: bytes, offset: int, size: int) -> dict[str, str]:
    """What a GNU long name or a pax header says of the next member: `path`, `size`, ..."""
    if size > _MOST_HEADER:
        raise damaged(file, f"is damaged: a name of {size:,} bytes")
    data = file.read(offset, size)
    if kind == b"K":  # the target of a link
        return {}
    if kind == b"L":
        return {"path": os.fsdecode(data.split(b"\0", 1)[0])}
    found = {}
    while data:  # "LENGTH KEY=VALUE\n", with the length of all of it
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            raise damaged(file, f"is damaged: there is no pax header at byte {offset:,}")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[os.fsdecode(key)] = os.fsdecode(value)
        data = data[int(length) :]
    return found


def _name(header: bytes) -> str:
    """Name and, in ustar, the folders before it."""
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    return os.fsdecode(prefix + b"/" + name if header[257:263] == b"ustar\0" and prefix else name)


def _number(field: bytes) -> int:
    """Octal digits, or if the first bit is set a number in base 256; -1: neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:]) if field[0] == 0x80 else -1
    digits = field.strip(b"\0 ")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return -1
