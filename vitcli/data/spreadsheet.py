"""Text in a CSV file that a spreadsheet would compute, such as `=cmd()`: written as text, and read back as it was.

An apostrophe before such text is how a user types it into a spreadsheet too.
"""

import unicodedata

_FIRST = ("=", "+", "-", "@")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may compute `text`. Numbers are no formulas.

    Spreadsheets, and what converts tables for them, drop spaces, invisible and control characters at the beginning, and
    take the wide forms of the signs (`＝` U+FF1D, `＋`, `－`, `＠`; also `﹦`, `﹣`, …) as the signs.
    """
    seen = "".join(char for char in text if unicodedata.category(char)[0] not in "ZC")
    if not unicodedata.normalize("NFKC", seen[:1]).replace("−", "-").startswith(_FIRST):
        return text[:1] in ("\t", "\r", "\n")
    try:
        float(text)
    except ValueError:
        return True
    return False


def cell_of(text: str) -> str:
    """What a cell holds so that it shows `text`."""
    return f"'{text}" if is_formula(text.lstrip("'")) else text


def text_of_cell(cell: str) -> str:
    """The text that `cell_of` was given."""
    return cell[1:] if cell.startswith("'") and is_formula(cell.lstrip("'")) else cell
