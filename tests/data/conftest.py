"""Files of small images, and sets of them."""

from pathlib import Path

import pytest
from PIL import Image

from vitcli.data.datasets import build_splits
from vitcli.data.source import Source
from vitcli.recipe.schema import Dataset


@pytest.fixture
def write(tmp_path):
    """write("a.jpg", bytes or image) -> path"""

    def write_file(name: str, content: bytes | Image.Image, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
        return path

    return write_file


@pytest.fixture(scope="module")
def digits() -> Source:
    return build_splits(Dataset(dataset="digits", num_samples=40)).train


@pytest.fixture
def folder_with_bad_images(make_image_folder) -> Source:
    """20 images, two of them broken."""
    data_dir = make_image_folder({"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    for broken in ("a/3.png", "b/7.png"):
        (data_dir / "train" / broken).write_bytes(b"not an image")
    return build_splits(Dataset(data_dir=data_dir)).train
