"""Pictures of answers: names of files, text, colors, and where on an image the heat is."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitcli.data.drawn_text import fitted
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.heat_colors import colors
from vitcli.deploy.pictures import (
    LONGEST,
    check_folders,
    file_names,
    heat_folder,
    overlay_folder,
    picture_of,
    with_answer,
    with_heat,
)  # fmt: skip
from vitcli.deploy.predictions import Answer
from vitcli.errors import UsageError
from vitcli.recipe.load import load_recipe


def transform_of(size=64, *, channels: int = 3, **keys):
    return build_eval_transform(load_recipe(image_resize=size, **keys).augmentation, in_channels=channels)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["photos/a/x.jpg", "photos/b/x.jpg"], ["a/x.jpg", "b/x.jpg"]),
        (["x.jpg", "x.png", "./x.jpg", "X.JPG"], ["x.jpg", "x.png.jpg", "x-2.jpg", "X-3.jpg"]),
        (["x.jpg", "x.jpg", "x.jpg"], ["x.jpg", "x-2.jpg", "x-3.jpg"]),
        (["../up/x.webp", "/elsewhere/deep/y"], None),
        ([".hidden", "a b.tar.png", "-x.png"], [".hidden.jpg", "a b.tar.jpg", "-x.jpg"]),
        (["é" * 120 + ".png"], [None]),
        (["one/deep/only.png"], ["only.jpg"]),
        ([], []),
    ],
)
def test_no_two_pictures_have_the_same_name(paths: list[str], names: list | None):
    found = file_names(paths)
    assert len({name.lower() for name in found}) == len(paths)
    for name, expected in zip(found, names or [None] * len(paths), strict=True):
        assert ".." not in name.split("/")
        assert not os.path.isabs(name)
        assert len(os.fsencode(os.path.basename(name))) <= 255
        assert expected in (None, name)


def test_a_folder_with_files_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    check_folders(tmp_path / "empty", tmp_path / "new" / "deep", None)
    for folder, reason in ((tmp_path, "none is overwritten"), (tmp_path / "file", "it is a file")):
        with pytest.raises(UsageError, match=reason):
            check_folders(None, folder)
    with pytest.raises(UsageError, match="two kinds of pictures"):
        check_folders(tmp_path / "empty", tmp_path / "x" / ".." / "empty")


def test_text_that_the_font_lacks_is_escaped():
    assert fitted("a cat, 90 %…", 500, 14) == "a cat, 90 %…"
    assert fitted("猫 \x1b[2J é\u202e", 500, 14) == r"\u732b \x1b[2J \xe9\u202e"
    cut = fitted("wide " * 50, 100, 14)
    assert cut.endswith("…")
    assert 10 < len(cut) < 25


def test_colors_are_those_of_inferno():
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(colors(values), 255 * matplotlib.colormaps["inferno"](values)[:, :3], atol=7)


def test_colors_become_brighter():
    luma = colors(np.linspace(0, 1, 101)) @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > 0).all()
    assert colors(np.array(0.0)).tolist() == [0, 0, 4]
    assert colors(np.array([[1.0]])).tolist() == [[[252, 255, 164]]]


@pytest.mark.parametrize("keys", [{}, {"crop_pct": 0.8}, {"crop_mode": "squash", "crop_pct": 0.7}, {"size": [48, 96]}])
@pytest.mark.parametrize("size", [(300, 200), (150, 400), (2000, 100)])
def test_the_box_is_what_the_transform_shows(keys: dict, size: tuple[int, int]):
    """The corners of an image whose red is the column and whose green is the row."""
    transform = transform_of(keys.get("size", 64), **{name: keys[name] for name in keys if name != "size"})
    columns, rows = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([columns, rows, 0 * rows], axis=-1).round().astype(np.uint8)
    seen = np.asarray(transform(Image.fromarray(pixels))).astype(float)
    left, top, right, bottom = transform.box(size)
    step_x, step_y = (right - left) / seen.shape[1], (bottom - top) / seen.shape[0]
    for value, edge, length, inward in (
        (seen[:, 0, 0].mean(), left, size[0], step_x / 2), (seen[:, -1, 0].mean(), right, size[0], -step_x / 2),
        (seen[0, :, 1].mean(), top, size[1], step_y / 2), (seen[-1, :, 1].mean(), bottom, size[1], -step_y / 2),
    ):  # fmt: skip
        assert value == pytest.approx(
            255 * (edge + inward) / length, abs=255 * 1.5 * max(step_x / size[0], step_y / size[1])
        )


def test_with_a_border_the_box_is_larger_than_the_image():
    transform = transform_of(64, crop_mode="border", crop_pct=1.0)
    assert transform.box((300, 200)) == pytest.approx((0, -50, 300, 250))


@pytest.mark.parametrize("mode", ["center", "border"])
def test_heat_is_where_the_network_sees_it(mode: str):
    """Of a white image: hot on the right half of what is seen; darker outside, the caption below."""
    transform = transform_of(64, crop_mode=mode, crop_pct=1.0)
    heat = np.zeros((64, 64), dtype=np.float32)
    heat[:, 32:] = 1
    drawn = np.asarray(with_heat(Image.new("RGB", (600, 400), "white"), heat, transform, "cat", 0.5))
    assert drawn.shape[1] == 600
    assert drawn.shape[0] > 420
    assert drawn[200, 200].sum() + 200 < drawn[200, 400].sum(), "cold left, hot right"
    outside = drawn[200, 50]
    if mode == "center":
        assert outside.tolist() == [115, 115, 115], "0.45 of white"
    else:
        assert outside.tolist() == drawn[200, 200].tolist(), "all of it is seen"


def test_bars_are_as_long_as_the_probabilities():
    page = np.asarray(with_answer(Image.new("RGB", (420, 100)), [("a", 0.75), ("b", 0.25)]))
    for line, share in ((0, 0.75), (1, 0.25)):
        row = page[100 + 10 + 24 * line + 1, 10:411].astype(int)
        is_bar = row[:, 2] > 150
        assert is_bar.sum() == pytest.approx(share * 400, abs=1.5)
    assert with_answer(Image.new("RGB", (32, 16)), []).size == (360, 16 * 11 + 40), "small ones are enlarged; one line"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16", "1", "P"])
def test_pictures_of_all_kinds(mode: str):
    image = Image.new(mode, (3000, 30)) if mode != "I;16" else Image.fromarray(np.full((30, 3000), 65535, np.uint16))
    picture = picture_of(image, transform_of())
    assert picture.mode == "RGB"
    assert picture.size == (LONGEST, 10)
    assert picture.getpixel((5, 5)) == ((255, 255, 255) if mode == "I;16" else (0, 0, 0))


def test_files_are_upright_without_metadata_and_never_overwritten(tmp_path: Path):
    picture = Image.new("RGB", (40, 20), "red")
    picture.info["exif"] = b"Exif\0\0secret"
    paths = ["in/a.png", "in/bad.png", "in/b/a.png"]
    answers = [
        Answer(paths[0], [("cat", 0.5)], picture=picture_of(picture, transform_of())),
        Answer(paths[1], [], "no image"),
        Answer(paths[2], [], picture=picture_of(picture, transform_of())),
    ]
    with overlay_folder(tmp_path / "out", paths) as write:
        for answer in answers:
            write(answer)
    files = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.jpg"))
    assert files == ["a.jpg", "b/a.jpg"]
    assert b"secret" not in (tmp_path / "out" / "a.jpg").read_bytes()
    with overlay_folder(tmp_path / "out", paths) as write, pytest.raises(FileExistsError):
        write(answers[0])
    heat = np.ones((64, 64), dtype=np.float32)
    answer = Answer(paths[0], [], picture=picture_of(picture, transform_of()), heat=heat, explained=("cat", 0.1))
    with heat_folder(tmp_path / "heat", paths, transform_of()) as write:
        write(answer)
    with Image.open(tmp_path / "heat" / "a.jpg") as found:
        assert found.size == (360, 20 * 9 + 40)
