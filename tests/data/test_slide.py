"""Translations and shears are those of Pillow, to the last bit."""

import random

import numpy as np
import pytest
from PIL import Image

from vitcli.data.slide import slide


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_equal_to_pillow(rows: bool, mode: str):
    rng, pixels = random.Random(0), np.random.default_rng(0)
    fill = (1, 200, 3) if mode == "RGB" else 7
    for size in [(1, 1), (1, 9), (9, 1), *((rng.randint(2, 60), rng.randint(2, 60)) for _ in range(60))]:
        image = Image.fromarray(pixels.integers(0, 256, (*size, 3), np.uint8)).convert(mode)
        slope = rng.choice([0, 0.25, rng.uniform(-0.99, 0.99)])
        offset = rng.choice([0, 0.5, -7, 400, rng.uniform(-20, 20)])
        matrix = (1, slope, offset, 0, 1, 0) if rows else (1, 0, 0, slope, 1, offset)
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)
        moved = slide(image, slope, offset, fill, rows=rows)
        assert moved is not None
        assert moved.mode == mode
        assert np.array_equal(moved, expected), (size, slope, offset)


def test_fractions_that_rounding_took_past_an_integer_are_left_to_pillow():
    """0.5 - 1e-14 and 1,000.5 - 1e-14 minus 0.5 have different next lower integers."""
    assert slide(Image.new("L", (2000, 3)), 0.0, -1e-14, 0, rows=True) is None
