"""The Python in the documentation runs as it stands."""

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
