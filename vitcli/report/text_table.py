"""Tables as lines of text that fit a width: columns that matter less are left out, lines never wrap."""

import os
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells

from vitcli.errors import printable
from vitcli.terminal import SafeConsole

_GAP = "  "
#: of a column that is shortened
_LEAST_WIDTH = 12


@dataclass(frozen=True)
class Column:
    """The title and one text for each row; of all columns that may be left out, the one with the highest rank goes."""

    title: str
    cells: list[str]
    rank: int = 0  #: 0: it always stays
    right: bool = False  #: aligned, for numbers

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.title, *map(printable, self.cells)]))


def width_of(console: SafeConsole) -> int | None:
    """The characters in a line of the terminal; None: it is a file or another program, which takes any."""
    return console.width if console.is_terminal or os.environ.get("COLUMNS") else None


def table_lines(columns: list[Column], width: int | None) -> list[str]:
    """The title line and one line for each row, of at most `width` characters (None: any).

    If the columns that must stay are still too wide, the cells of the first are shortened, then all lines are cut.
    """
    kept = list(columns)
    while width is not None and _total(kept) > width and max(column.rank for column in kept) > 0:
        kept.remove(max(kept, key=lambda column: column.rank))
    first = kept[0].width if width is None else max(_LEAST_WIDTH, kept[0].width - max(0, _total(kept) - width))
    widths = [min(first, kept[0].width), *(column.width for column in kept[1:])]
    rows = zip(*([column.title, *map(printable, column.cells)] for column in kept), strict=True)
    return [_line(row, kept, widths, width) for row in rows]


def fits(columns: list[Column], width: int | None) -> bool:
    """Whether the table needs no more than `width` characters with all its columns."""
    return width is None or _total(columns) <= width


def _total(columns: list[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(row: tuple[str, ...], columns: list[Column], widths: list[int], width: int | None) -> str:
    cells = []
    for text, column, cell_width in zip(row, columns, widths, strict=True):
        shown = shortened(text, cell_width)
        space = " " * (cell_width - cell_len(shown))
        cells.append(space + shown if column.right else shown + space)
    line = _GAP.join(cells).rstrip()
    return line if width is None else _cut(line, width)


def shortened(text: str, width: int) -> str:
    """`text`, or its beginning and its end, which tells runs of one recipe apart."""
    if cell_len(text) <= width:
        return text
    end = _cut(text[::-1], (width - 1) // 2)[::-1]
    return f"{_cut(text, width - 1 - cell_len(end))}…{end}"


def _cut(text: str, width: int) -> str:
    return chop_cells(text, width)[0] if width > 0 and cell_len(text) > width else text
