"""Pictures of what a network answers: the answer below the image, or a heat map on it. Pillow and numpy only."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vitcli.data.bands import Bands, Picture
from vitcli.data.drawn_text import fitted, font
from vitcli.data.eval_transform import EvalTransform
from vitcli.data.heat_colors import colors
from vitcli.data.pixel_format import in_8_bits
from vitcli.deploy.predictions import Answer, Write
from vitcli.errors import UsageError

#: px; larger images are reduced to this longer side, and narrower ones are enlarged, so that the text can be read
LONGEST, _NARROWEST = 1024, 360
_QUALITY, _LONGEST_NAME = 90, 240
#: classes that are drawn below an image
_MOST_CLASSES = 10
_PADDING, _LINE, _TEXT, _SCALE = 10, 24, 14, 96
#: brightness of what the network does not see, and share of the color of a heat map
_UNSEEN, _COLOR = 0.45, 0.55
_PAGE, _INK, _FAINT, _BAR, _TRACK = "#14161c", "#f2f4f8", "#a3adbd", "#3f7fd9", "#262b36"


def picture_of(image: Picture, transform: EvalTransform) -> Image.Image:
    """`image` in RGB, to be drawn on, at most `LONGEST` px on a side; of other numbers of channels the first three.

    Raises:
        UnfitImage: what is black and white in it is not known, as in `transform`.
    """
    limits = transform.format.pixel_range
    image = in_8_bits(image, None if isinstance(limits, str) else limits)
    if isinstance(image, Bands):
        first, *others = image.bands
        image = Image.merge("RGB", (first, others[0], others[1])) if len(others) > 1 else first
    factor = min(1.0, LONGEST / max(image.size))
    if factor < 1:
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        image = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    picture = Image.new("RGB", image.size)  # without the metadata of the file
    picture.paste(image.convert("RGB"))
    return picture


@contextmanager
def overlay_folder(folder: Path, paths: Sequence[str]) -> Iterator[Write]:
    """Write each image with its answer below it into `folder`."""
    with _folder(folder, paths, lambda picture, answer: with_answer(picture, answer.predictions)) as write:
        yield write


@contextmanager
def heat_folder(folder: Path, paths: Sequence[str], transform: EvalTransform) -> Iterator[Write]:
    """Write each image with its heat map into `folder`."""

    def draw(picture: Image.Image, answer: Answer) -> Image.Image:
        assert answer.heat is not None
        assert answer.explained is not None
        return with_heat(picture, answer.heat, transform, *answer.explained)

    with _folder(folder, paths, draw) as write:
        yield write


def check_folders(*folders: Path | None) -> None:
    """UsageError, before anything is computed, if pictures cannot be written to one of them."""
    given = [folder for folder in folders if folder]
    if len({os.path.realpath(folder) for folder in given}) < len(given):
        raise UsageError(f"{given[0]} is given for two kinds of pictures", help="give a folder for each")
    for folder in given:
        if folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None)):
            reason = "it has files, and none is overwritten" if folder.is_dir() else "it is a file"
            raise UsageError(f"cannot write pictures to {folder}: {reason}", help="give a new folder")


@contextmanager
def _folder(folder: Path, paths: Sequence[str], draw: Callable[[Image.Image, Answer], Image.Image]) -> Iterator[Write]:
    folder.mkdir(parents=True, exist_ok=True)
    names = iter(file_names(paths))

    def write(answer: Answer) -> None:
        file = folder / next(names)
        if answer.picture is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            draw(answer.picture, answer).save(stream, "JPEG", quality=_QUALITY)

    yield write


def file_names(paths: Sequence[str]) -> list[str]:
    """For each image the name of its picture: its path below the folder that all have in common, as .jpg.

    No two are the same, also where a file system ignores case: x.jpg and x.png become x.jpg and x.png.jpg, and an image
    that is given twice x.jpg and x-2.jpg.
    """
    whole = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in whole]) if whole else ""
    names, taken = [], set()
    for path in whole:
        folder, file = os.path.split(os.path.relpath(path, root))
        stem, suffix = os.path.splitext(file)
        with_suffix = [] if suffix.lower() == ".jpg" else [file]
        candidates = chain([stem, *with_suffix], (f"{stem}-{number}" for number in count(2)))
        pictures = (os.path.join(folder, f"{_short(candidate)}.jpg") for candidate in candidates)
        names.append(next(name for name in pictures if name.lower() not in taken))
        taken.add(names[-1].lower())
    return names


def _short(name: str) -> str:
    """Most file systems allow 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])


def with_answer(picture: Image.Image, predictions: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture, and below it a line for each class: its name and probability, and a bar as long as that."""
    shown = predictions[:_MOST_CLASSES]
    page, draw, top = _page(_enlarged(picture), lines=max(len(shown), 1))
    left, right = _PADDING, page.width - _PADDING
    for name, probability in shown:
        draw.rectangle((left, top, right, top + _LINE - 4), _TRACK)
        if length := round(probability * (right - left)):
            draw.rectangle((left, top, left + length, top + _LINE - 4), _BAR)
        _label(draw, (left + 6, top + 2, right - 6), name, f"{100 * probability:.1f} %")
        top += _LINE
    if not shown:
        draw.text((left, top + 2), "none of its classes", _FAINT, font(_TEXT))
    return page


def with_heat(
    picture: Image.Image, heat: np.ndarray, transform: EvalTransform, name: str, probability: float
) -> Image.Image:
    """The picture with `heat` (H, W), 0..1, where the network sees it; what it does not see is darker.

    Below it are the scale of colors, and the class that the map is about with its probability.
    """
    picture = _enlarged(picture)
    pixels = np.asarray(picture, dtype=np.float32)
    box = tuple(map(round, transform.box(picture.size)))
    size = max(box[2] - box[0], 1), max(box[3] - box[1], 1)
    resized = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    inside = tuple(max(0, start) for start in box[:2]) + tuple(map(min, box[2:], picture.size))
    seen = np.s_[inside[1] : inside[3], inside[0] : inside[2]]
    values = np.asarray(resized)[inside[1] - box[1] : inside[3] - box[1], inside[0] - box[0] : inside[2] - box[0]]
    drawn = _UNSEEN * pixels
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[seen][:, :, None]  # its colors would mix with those
    drawn[seen] = (1 - _COLOR) * gray + _COLOR * colors(values)
    page, draw, top = _page(Image.fromarray(drawn.round().astype(np.uint8)), lines=1)
    scale = colors(np.linspace(0, 1, _SCALE, dtype=np.float32))[None].repeat(_LINE - 12, axis=0)
    page.paste(Image.fromarray(scale.round().astype(np.uint8)), (_PADDING, top + 4))
    _label(draw, (2 * _PADDING + _SCALE, top + 2, page.width - _PADDING), name, f"{100 * probability:.1f} %")
    return page


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture by a whole number, so that every pixel is seen."""
    factor = _NARROWEST // max(picture.size)
    if factor < 2:
        return picture
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _page(picture: Image.Image, *, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A page with the picture at its top, room for lines of text below, and where these begin."""
    width, top = max(picture.width, _NARROWEST), picture.height + _PADDING
    page = Image.new("RGB", (width, top + lines * _LINE - 4 + _PADDING), _PAGE)
    page.paste(picture, ((width - picture.width) // 2, 0))
    return page, ImageDraw.Draw(page), top


def _label(draw: ImageDraw.ImageDraw, place: tuple[int, int, int], name: str, percent: str) -> None:
    """Two texts on one line from left to right, at `place` (left, top, right)."""
    left, top, right = place
    of_label = font(_TEXT)
    space = right - of_label.getlength(percent)
    draw.text((space, top), percent, _INK, of_label)
    draw.text((left, top), fitted(name, int(space - left - 10), _TEXT), _INK, of_label)
