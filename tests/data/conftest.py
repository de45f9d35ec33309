"""Files and folders of small pictures."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.data.pictures import photo


@pytest.fixture
def write(tmp_path):
    """write("a.jpg", bytes or image) -> path"""

    def write_file(name: str, content: bytes | Image.Image, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
        return path

    return write_file


@pytest.fixture
def image_folder(tmp_path):
    """image_folder({"train/cat": 3, "val/cat": 1}) -> the data_dir, with so many small PNGs in each folder."""

    def make(counts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
        data_dir = tmp_path / "data"
        for folder, count in counts.items():
            os.makedirs(data_dir / folder)
            for number in range(count):
                photo(*size, seed=number + len(folder)).save(data_dir / folder / f"{number:03d}.png")
        return data_dir

    return make
