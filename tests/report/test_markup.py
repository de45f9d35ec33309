"""Whatever a class or a file is called, a page shows the name and does not obey it."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.pages import read_page
from vitcli.report.markup import Html, escaped, many, readable, tag

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "</style><b>", "<!--",
    "]]>", "&lt;", "javascript:alert(1)", "\x00\x1b[31m", "\u202egpj.exe", "\udcff.png", "=cmd()", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str):
    page = read_page(tag("p", tag("b", name), name, title=name))
    assert [element for element, _ in page.elements] == ["p", "b"]
    assert page.elements[0][1] == {"title": readable(name)}
    assert page.text == 2 * readable(name)


@given(st.text())
def test_any_text_comes_back(text: str):
    assert html.unescape(escaped(text)) == readable(text)
    assert not {"<", ">", '"', "'"} & {*escaped(text)}


def test_what_no_page_can_hold_is_replaced():
    assert readable("a\x00b\udcffc\u202ed\n") == "a\ufffdb\ufffdc\ufffdd\n"
    assert readable("größe 中文 ½ \N{NO-BREAK SPACE}") == "größe 中文 ½ \N{NO-BREAK SPACE}"
    escaped("\udcff\ud800").encode()


def test_attributes():
    assert tag("p", class_="a", aria_label="b", stroke_width=1.5, hidden=True, id=None) == (
        '<p class="a" aria-label="b" stroke-width="1.5" hidden></p>'
    )
    assert tag("img", alt="") == '<img alt="">'
    assert tag("line", x1=1 / 3, x2=2.0) == '<line x1="0.33" x2="2"></line>'


def test_only_markup_is_markup():
    assert many([tag("b", 1), "<", None]) == "<b>1</b>&lt;"
    assert isinstance(many([]), Html)
    assert escaped(str(tag("b")) + "") == "&lt;b&gt;&lt;/b&gt;", "a sum is text again"
