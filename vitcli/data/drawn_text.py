"""Text on pictures, in Pillow's own font: what it lacks is shown as escapes, what is too long is cut."""

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from vitcli.errors import printable

#: px, the size at which characters are told apart
_PROBE = 14


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """size: in px."""
    return ImageFont.load_default(size)


def fitted(text: str, space: int, size: int) -> str:
    """`text` on one line of `space` px: what the font lacks as escapes, and cut where it is too long."""
    own = font(size)
    text = "".join(char if _is_drawn(char) else char.encode("unicode_escape").decode() for char in printable(text))
    if own.getlength(text) <= space:
        return text
    while text and own.getlength(text + "…") > space:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=4096)
def _is_drawn(char: str) -> bool:
    """Whether the font has `char`: of another, all are drawn like U+FFFF, which is no character."""
    return char.isascii() or _glyph(char) != _glyph("\uffff")


def _glyph(char: str) -> bytes:
    image = Image.new("L", (3 * _PROBE, 3 * _PROBE))
    ImageDraw.Draw(image).text((_PROBE, _PROBE), char, 255, font(_PROBE))
    return image.tobytes()
