"""The table of formats: its rules against files that Pillow and others write, and against the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, photo
from vitcli.data.find_images import find_images
from vitcli.data.image_formats import FORMATS, LONGEST_START, SUFFIXES, format_of, is_image


def test_the_documentation_has_the_same_table():
    rows = re.findall(r"^\| (\w+) \| (\.[\w. ]+) \|", Path("docs/images.md").read_text(), re.MULTILINE)
    assert rows == [(known.name, " ".join(known.suffixes)) for known in FORMATS]
    assert len(SUFFIXES) == sum(len(known.suffixes) for known in FORMATS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_files_are_recognized_by_their_first_bytes(kind: str, mode: str):
    assert format_of(encoded(photo().convert(mode), kind)[:LONGEST_START]).name == kind


def test_files_of_others(tmp_path):
    np.save(tmp_path / "a", np.zeros((2, 2)))
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "b", "TIFF", big_tiff=True)
    assert is_image(str(tmp_path / "a.npy"))
    assert format_of((tmp_path / "a.npy").read_bytes()).name == "NPY"
    assert format_of((tmp_path / "b").read_bytes()).name == "TIFF"
    assert format_of((Path(__file__).parent / "small.heic").read_bytes()).name == "HEIF"


@pytest.mark.parametrize("content", [b"", b"BMW is a car", b"P7\n", b"PK\x03\x04", b"%PDF-1.7", b"#!/bin/sh\n", b"GIF"])
def test_other_files_are_not(tmp_path, content: bytes):
    assert format_of(content) is None
    (tmp_path / "README").write_bytes(content)
    assert not is_image(str(tmp_path / "README"))
    assert not is_image(str(tmp_path / "absent"))


def test_every_suffix_is_found_below_a_folder_and_the_rest_is_counted(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix.upper()}").touch()
    (tmp_path / "without").write_bytes(encoded(photo(), "WEBP"))
    for name in ("notes.txt", "film.mov", "LICENSE", "b.txt"):
        (tmp_path / name).touch()
    found, notes = find_images([str(tmp_path)])
    assert len(found) == len(SUFFIXES) + 1
    assert notes == ["left out: 1 .mov, 2 .txt, 1 without suffix"]
