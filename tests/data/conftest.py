"""Files of small images."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def write(tmp_path):
    """write("a.jpg", bytes or image) -> path"""

    def write_file(name: str, content: bytes | Image.Image, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
        return path

    return write_file
