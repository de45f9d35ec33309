"""`make guards` takes an hour; that its list still fits the code is seen at once."""

import pytest

from tests.guards import GUARDS, Guard
from tests.support.commands import ROOT


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: f"{guard.file}: {guard.code.strip()[:40]}")
def test_the_guard_is_there_once_and_so_is_its_test(guard: Guard):
    assert (ROOT / "vitcli" / guard.file).read_text(encoding="utf-8").count(guard.code) == 1
    file, _, name = guard.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text(encoding="utf-8") or not name
