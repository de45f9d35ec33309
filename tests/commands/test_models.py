"""`vitcli models ls` of the catalog needs no torch: it takes one second instead of half a minute."""

from pathlib import Path

from tests.commands.test_predict import without_torch
from vitcli.catalog import MODELS


def test_ls_needs_no_torch(tmp_path: Path):
    done = without_torch("models", "ls", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == sorted(MODELS)
    assert ["fastvit_t8", "4,026,232", "3,996,040", "0.685", "256"] in rows
