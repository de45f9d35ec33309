"""Finds the files in a zip archive, and reads single ones: stored or deflated, of any size, from any thread."""

import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator

from vitcli.data.members import Members, check_size, damaged
from vitcli.data.random_access import LargeFile
from vitcli.errors import DataError

#: APPNOTE.TXT 4.3.7: signature, 22 bytes that the directory has too, length of the name and of the extra field
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800


class ZipMembers(Members):
    """The files in a zip archive. `numbers`: position of the header, size, packed size, CRC-32, method."""

    has_checksums = True

    def read(self, number: int, most: int) -> bytes:
        header, size, packed_size, crc, method = self.numbers[number].tolist()
        check_size("it has", max(size, packed_size), most)
        start = self.file.read(header, _LOCAL_HEADER.size)
        if len(start) < _LOCAL_HEADER.size or not start.startswith(b"PK\3\4"):
            raise damaged(self.file, f"is damaged: there is no member at byte {header:,}")
        _, name_size, extra_size = _LOCAL_HEADER.unpack(start)
        data = self.file.read(header + _LOCAL_HEADER.size + name_size + extra_size, packed_size)
        if method == zipfile.ZIP_DEFLATED:
            data = _inflated(self.file, data, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise damaged(self.file, "is damaged: size or checksum of a member are wrong")
        return data

    def _identity(self, number: int) -> str:
        _, size, _, crc, _ = self.numbers[number].tolist()
        return f"{self.names[number]} {size} {crc}"


def read_zip(file: LargeFile) -> ZipMembers:
    """The index of `file`; DataError if it is damaged, encrypted, or compressed by another method than deflate."""
    ignored: Counter[str] = Counter()
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    except Exception as error:  # the directory of a malicious file may be anything
        raise damaged(file, f"cannot be read as a zip archive: {error}") from None
    return ZipMembers(file, _rows(file, members, ignored), ignored)


def _rows(
    file: LargeFile, members: list[zipfile.ZipInfo], ignored: Counter[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        name = _name(member)
        if name.endswith("/") or kind == stat.S_IFDIR:
            continue
        if kind not in (0, stat.S_IFREG):
            ignored["link" if kind == stat.S_IFLNK else "device"] += 1
            continue
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{file} is encrypted: {name!r}", help="unpack it, and zip it without a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            message = f"{file} is compressed by method {member.compress_type}, which cannot be read here: {name!r}"
            raise DataError(message, help="zip it again, best without compression: zip -0 -r photos.zip photos")
        sizes = (member.header_offset, member.file_size, member.compress_size)
        yield name, (*sizes, member.CRC, member.compress_type)


def _name(member: zipfile.ZipInfo) -> str:
    """The name in UTF-8 even if the archive does not say so, with the separators that belong there.

    zipfile takes bytes without the mark of UTF-8 for code page 437, but macOS and others write UTF-8 without it.
    """
    raw = member.orig_filename
    if not member.flag_bits & _UTF8:
        raw = os.fsdecode(raw.encode("cp437"))
    return raw.replace("\\", "/")  # as Info-ZIP does for archives of some Windows programs


def _inflated(file: LargeFile, data: bytes, size: int) -> bytes:
    """At most one byte more than `size`, whatever the data expands to."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise damaged(file, f"is damaged: {error}") from None
