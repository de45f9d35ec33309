"""The JavaScript of the exported page, run by Node.js: the network sees the pixels of Pillow, bit by bit."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitcli.data.eval_transform import border_color, build_eval_transform
from vitcli.deploy.formats.web import INSTALL, PAGE
from vitcli.image_size import height_and_width
from vitcli.recipe.schema import Augmentation

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

#: width and height of an image, size of the network's input, crop_pct, channels: down, up, both, not at all, beyond
#: 16:1, tall (Pillow 13 resizes the height first), gray, one pixel
CASES = (
    (200, 150, 64, 0.9, 3), (31, 50, 64, 1.0, 3), (40, 90, 60, 0.875, 3), (48, 48, 48, 1.0, 3),
    (700, 20, 32, 0.95, 3), (11, 385, 8, 1.0, 3), (33, 169, 8, 1.0, 3), (1, 1, 8, 0.5, 3), (97, 66, 63, 0.95, 1),
    (200, 150, (48, 80), 0.9, 3), (31, 90, (64, 24), 1.0, 3), (97, 66, (63, 40), 0.875, 1),
)  # fmt: skip

SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
const [page, jobs] = process.argv.slice(2);
const { fromRgba, networkPixels } = await import(`${page}/preprocess.mjs`);
const { readPreprocessing } = await import(`${page}/artifact.mjs`);
for (const { given, found, width, height, values } of JSON.parse(readFileSync(jobs, "utf8"))) {
  const to = readPreprocessing(values);
  const image = fromRgba(readFileSync(given), width, height, to.channels);
  writeFileSync(found, networkPixels(image, to).pixels);
}
"""


def seen_by_javascript(folder: Path, jobs: list[tuple[Image.Image, dict[str, Any]]]) -> list[np.ndarray]:
    """Of each image, the pixels that a network with the preprocessing of these lines of artifact.txt sees."""
    (folder / "script.mjs").write_text(SCRIPT)
    listed = []
    for number, (image, values) in enumerate(jobs):
        (folder / f"{number}.rgba").write_bytes(image.convert("RGBA").tobytes())
        given, found = (str(folder / f"{number}.{ending}") for ending in ("rgba", "found"))
        listed.append({"given": given, "found": found, "width": image.width, "height": image.height, "values": values})
    (folder / "jobs.json").write_text(json.dumps(listed))
    subprocess.run(["node", folder / "script.mjs", PAGE, folder / "jobs.json"], check=True, timeout=60)
    return [np.fromfile(job["found"], np.uint8) for job in listed]


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_pixels_are_pillows(interpolation: Any, crop_mode: Any, tmp_path: Path):
    jobs, expected = [], []
    for width, height, size, crop_pct, channels in CASES:
        words = {"crop_pct": crop_pct, "interpolation": interpolation, "crop_mode": crop_mode}
        aug = Augmentation(image_resize=size, mean=(0.4,), std=(1,), **words)
        values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        lines = words | {"in_channels": channels}
        lines |= dict(zip(("image_height", "image_width"), height_and_width(size)))
        lines |= {"border": ",".join(map(str, border_color(aug.mean, channels)))}
        jobs.append((Image.fromarray(values), lines))
        expected.append(np.asarray(build_eval_transform(aug, in_channels=channels)(jobs[-1][0])))
    for case, ours, pillows in zip(CASES, seen_by_javascript(tmp_path, jobs), expected):
        np.testing.assert_array_equal(ours.reshape(pillows.shape), pillows, err_msg=str(case))


def test_the_page_says_how_the_runtime_is_installed():
    assert f"<pre>{INSTALL}</pre>" in (PAGE / "index.html").read_text(encoding="utf-8")
