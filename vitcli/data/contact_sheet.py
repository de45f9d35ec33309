"""Many small pictures on one page: a row for each image, a caption below each picture, headings above the columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vitcli.data.drawn_text import fitted, font

#: the longer side of a picture on the page is at least this, or the next multiple of its own pixels; in px
_LEAST_SIDE, _MOST_SIDE = 144, 224
_MARGIN, _GAP, _GROUP_GAP, _LINE = 24, 6, 22, 20
_PAGE, _INK, _FAINT, _CAPTION, _CAPTION_INK = "#ffffff", "#1d2433", "#697386", "#eef1f6", "#1d2433"


@dataclass(frozen=True)
class Cell:
    """Pictures of one size that share a caption: the views of one sample, side by side."""

    pictures: tuple[Image.Image, ...]
    caption: str


def contact_sheet(title: str, subtitle: str, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """A page in RGB. `headings`: one for each cell of a row; all rows have equal numbers of pictures in each column."""
    columns = [len(cell.pictures) for cell in rows[0]]
    width, height = _on_page(rows[0][0].pictures[0].size)
    widths = [count * width + (count - 1) * _GAP for count in columns]
    lefts = [_MARGIN + sum(widths[:column]) + column * _GROUP_GAP for column in range(len(columns))]
    top = _MARGIN + 3 * _LINE + 2 * _GAP
    row_height = height + _LINE + _GROUP_GAP
    needed = max(lefts[-1] + widths[-1], *(_MARGIN + math.ceil(font(size).getlength(text))
                                           for text, size in ((title, 18), (subtitle, 13))))  # fmt: skip
    page = Image.new("RGB", (needed + _MARGIN, top + len(rows) * row_height + _MARGIN - _GROUP_GAP), _PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, _INK, font(18))
    draw.text((_MARGIN, _MARGIN + _LINE + 2), subtitle, _FAINT, font(13))
    for left, space, heading in zip(lefts, widths, headings, strict=True):
        draw.text((left, top - _LINE), fitted(heading, space, 13), _FAINT, font(13))
    for number, row in enumerate(rows):
        for left, space, cell in zip(lefts, widths, row, strict=True):
            _draw_cell(page, cell, (left, top + number * row_height), (width, height), space)
    return page


def _draw_cell(page: Image.Image, cell: Cell, corner: tuple[int, int], size: tuple[int, int], space: int) -> None:
    left, top = corner
    width, height = size
    for number, picture in enumerate(cell.pictures):
        enlarged = picture.width < width
        filter = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        page.paste(picture.convert("RGB").resize(size, filter), (left + number * (width + _GAP), top))
    draw = ImageDraw.Draw(page)
    draw.rectangle((left, top + height, left + space - 1, top + height + _LINE - 1), _CAPTION)
    draw.text((left + 5, top + height + 3), fitted(cell.caption, space - 10, 12), _CAPTION_INK, font(12))


def _on_page(size: tuple[int, int]) -> tuple[int, int]:
    """Small pictures are enlarged by a whole number, so that every pixel is seen; large ones are made smaller."""
    longest = max(size)
    if longest < _LEAST_SIDE:
        factor: float = math.ceil(_LEAST_SIDE / longest)
    else:
        factor = min(1.0, _MOST_SIDE / longest)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def displayed(pixels: np.ndarray) -> Image.Image:
    """(C, H, W) in [0, 1] -> a picture: gray if C is 1 or 2, else the first three channels as red, green, blue."""
    values = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values[0] if len(values) < 3 else np.ascontiguousarray(np.moveaxis(values[:3], 0, 2)))
