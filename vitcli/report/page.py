"""One page that needs nothing else: its head, sections, tables, and pictures inside it."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vitcli.report.markup import Content, Html, many, tag, trusted, unbroken

#: of a picture, in px; and how many pictures a page has at most
LONGEST_SIDE, MOST_PICTURES = 160, 60
_QUALITY = 80
#: below this side, JPEG keeps the full resolution of colors, and a browser shows the pixels as they are
_FEW_PIXELS = 80
#: nothing is loaded, run, or sent; pictures are in the page
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("report.css")


@dataclass
class Section:
    """A part of the page with its own heading, and an entry in the table of contents."""

    title: str
    parts: list[Html] = field(default_factory=list)
    lead: str = ""  #: one or two sentences below the heading

    @property
    def anchor(self) -> str:
        return "".join(char if char.isascii() and char.isalnum() else "-" for char in self.title.lower())


def page(title: str, head: Html, sections: Sequence[Section], foot: str) -> str:
    """The whole file. title: of the window; head: what stands above the table of contents."""
    style = trusted(_STYLE.read_text(encoding="utf-8"))
    shown = [section for section in sections if section.parts or section.lead]
    links = [tag("li", tag("a", section.title, href=f"#{section.anchor}")) for section in shown]
    body = [
        tag("header", head),
        tag("nav", tag("ol", *links), aria_label="Contents"),
        tag("main", *map(_section, shown)),
        tag("footer", foot),
    ]
    meta = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    ]
    whole = tag("html", tag("head", *meta), tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _section(section: Section) -> Html:
    lead = tag("p", unbroken(section.lead), class_="lead") if section.lead else None
    return tag("section", tag("h2", section.title), lead, *section.parts, id=section.anchor)


@dataclass(frozen=True)
class Column:
    """Of a table: its heading, and how its cells are set."""

    heading: Content
    kind: str = ""  #: number: to the right, in figures of equal width; strip: a drawing; name: may be broken anywhere


def numbers(*headings: Content) -> list[Column]:
    """Columns of numbers."""
    return [Column(heading, "number") for heading in headings]


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], *, caption: str, head: bool = True) -> Html:
    """A table whose first column names its rows. caption: for screen readers, and above the table where it is wide."""
    headings = [tag("th", column.heading, scope="col", class_=column.kind or None) for column in columns]
    body = []
    for row in rows:
        first, *others = (
            tag("th" if not number else "td", cell, class_=column.kind or None, scope="row" if not number else None)
            for number, (cell, column) in enumerate(zip(row, columns, strict=True))
        )
        body.append(tag("tr", first, *others))
    parts = [tag("caption", caption), tag("thead", tag("tr", *headings)) if head else None, tag("tbody", *body)]
    return scrolling(tag("table", *parts), caption)


def facts(rows: Iterable[tuple[Content, Content]], *, caption: str) -> Html:
    """Names and values, one pair a line."""
    return table([Column("name"), Column("value", "name")], rows, caption=caption, head=False)


def scrolling(content: Html, name: str) -> Html:
    """Content that may be wider than a small screen; with the keyboard too it can be moved."""
    return tag("div", content, class_="wide", tabindex="0", role="region", aria_label=name)


def figure(content: Html, title: str, note: str = "", *, kind: str = "") -> Html:
    """A chart below its title."""
    said = many([tag("strong", title), " ", tag("span", note, class_="quiet") if note else None])
    return tag("figure", tag("figcaption", said), content, class_=kind or None)


def grid(parts: Iterable[Html], kind: str = "charts") -> Html:
    """Side by side where there is room."""
    return tag("div", *parts, class_=kind)


def details(summary: str, *parts: Html) -> Html:
    """Hidden until it is opened; printed in full."""
    return tag("details", tag("summary", summary), *parts)


def commands(lines: Iterable[tuple[str, str]]) -> Html:
    """What to type for what: a definition list of (purpose, command)."""
    return tag(
        "dl", *(many([tag("dt", what), tag("dd", tag("code", line))]) for what, line in lines), class_="commands"
    )


def picture(image: Image.Image, description: str) -> Html:
    """The image in the page: made smaller, and encoded anew from its pixels, without anything else of its file."""
    shown = image.convert("RGB")
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    is_small = max(shown.size) < _FEW_PIXELS
    stream = io.BytesIO()
    clean = Image.frombytes("RGB", shown.size, shown.tobytes())
    clean.save(stream, "JPEG", quality=_QUALITY, subsampling=0 if is_small else -1, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return tag(
        "img",
        src=source,
        alt=description,
        width=shown.width,
        height=shown.height,
        class_="pixels" if is_small else None,
    )
