"""HTML and SVG as values: text that others chose is always escaped, because only what is built here is `Html`."""

import html
import unicodedata
from collections.abc import Iterable
from typing import Any


class Html(str):
    """Markup that needs no escaping: made by `tag`, `many` and `trusted` only."""

    __slots__ = ()


Content = Html | str | int | float | None

#: elements without content, which have no end
_VOID = ("meta", "link", "img", "br", "hr")


def tag(name: str, /, *content: Content, **attributes: Any) -> Html:
    """<name …>content</name>. All text, and the values of attributes, are escaped.

    Attributes are spelled as in Python: `class_`, `aria_label`, `stroke_width`; those that are None or False are left
    out, and True stands for one without a value.
    """
    shown = "".join(map(_attribute, attributes.items()))
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{''.join(map(escaped, content))}</{name}>")


def many(parts: Iterable[Content]) -> Html:
    """One after the other."""
    return Html("".join(map(escaped, parts)))


def trusted(text: str) -> Html:
    """Markup of this program's own; never anything with a name in it."""
    return Html(text)


def escaped(content: Content) -> str:
    """Markup as it is, nothing for None, and text with `&`, `<`, `>` and quotes escaped, as `readable` has it."""
    if content is None:
        return ""
    return content if isinstance(content, Html) else html.escape(readable(str(content)))


def unbroken(text: str) -> str:
    """A sentence whose numbers stay on one line with their unit."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" – ", "\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}")


def readable(text: str) -> str:
    """`text` without what a page cannot hold or what would reorder it: such characters become U+FFFD.

    These are control characters, surrogates (bytes of a file name that are no text), and marks of direction.
    """
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_unfit(char) else char for char in text)


def _is_unfit(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs")


def _attribute(pair: tuple[str, Any]) -> str:
    name, value = pair
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(_short(value))}"'


def _short(value: Any) -> Content:
    """Coordinates with two decimals at most."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else str(value)
