"""The Python in the documentation runs as it stands, and the tests that it names exist."""

import re

import pytest

from tests.support.commands import ROOT

PAGES = ["docs/models.md", "docs/deployment.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_named_tests_exist():
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", (ROOT / "docs/reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 60
    missing = [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert not missing
