"""Generated images that cost almost nothing to read and that a model can learn; for benchmarks and tests."""

import hashlib
from typing import ClassVar

import numpy as np
from PIL import Image

from vitcli.data.source import Source
from vitcli.data.streams import stream_seed
from vitcli.recipe.schema import Dataset


def open_synthetic(section: Dataset, split: str, needs_labels: bool = True) -> "SyntheticImages":
    """1,024 training and 256 validation images of 10 classes."""
    return SyntheticImages(split)


class SyntheticImages(Source):
    """Noise of 64x64 pixels over the color of one of 10 classes; an image depends on its split and number only."""

    num_images: ClassVar = {"train": 1024, "val": 256}
    colors: ClassVar = np.random.Philox(key=stream_seed("synthetic colors")).random_raw(30).reshape(10, 3) % 256

    def __init__(self, split: str) -> None:
        self.split = split
        count = self.num_images[split]
        super().__init__(count, np.arange(count) % 10, [f"color{index}" for index in range(10)])

    def _load(self, row: int) -> Image.Image:
        raw = np.random.Philox(key=stream_seed(f"synthetic {self.split}", row)).random_raw(64 * 64 * 3 // 8)
        noise = raw.view(np.uint8).reshape(64, 64, 3) // 2  # 0..127
        return Image.fromarray(noise + (self.colors[row % 10] // 2).astype(np.uint8))

    def _name(self, row: int) -> str:
        return f"synthetic/{self.split}[{row}]"

    def _digests(self) -> dict[str, str]:
        count = len(self)
        evenly_spread = np.array_equal(self.rows, np.arange(count) * self.num_images[self.split] // count)
        rows = count if evenly_spread else hashlib.sha256(self.rows.tobytes()).hexdigest()
        return {"sha256": f"synthetic/{self.split}/{rows}"}
