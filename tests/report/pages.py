"""What a browser makes of a page, read with Python's own parser: cells of tables, texts, and all that names a place."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}
#: attributes by which a page asks for something
PLACES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background")


@dataclass
class Page(HTMLParser):
    """`rows` of each table by its caption; `places` that are asked for; `elements` in their order; all `text`."""

    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.places += [value or "" for name, value in attrs if name in PLACES]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.caption = ""
        if tag == "tr":
            self.rows.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.rows[self.caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] == "caption":
            self.caption += data
        elif {"td", "th"} & {*self.open}:
            self.rows[self.caption][-1][-1] += data


def read_page(text: str) -> Page:
    """Fails if an element is not closed."""
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open
    return page
