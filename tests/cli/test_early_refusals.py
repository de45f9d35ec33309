"""What is plainly wrong is refused before PyTorch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import environment


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "/nowhere"], "/nowhere does not exist"),
        (["train", "--ckpt_path", "/nowhere.pt", "--data_dir", "/"], "/nowhere.pt does not exist"),
        (["train", "--data_dir", "/nowhere"], "data_dir '/nowhere' does not exist"),
        (["train", "--data_dir", "/nowhere.zip"], "data_dir '/nowhere.zip' does not exist"),
        (["train", "-c", "quickstart", "--resume", "/nowhere"], "there is no run /nowhere"),
        (["train", "-c", "quickstart", "--run_dir", "taken"], "taken holds a run already"),
        (["train", "-c", "quickstart", "--resume", "auto", "--run_dir", "new", "--freeze", "backbone"], "are random"),
        (["train", "-c", "finetune", "--data_dir", "/"], "starts from trained weights"),
        (["train", "-c", "quickstart", "--data_dir", "/"], "`dataset: digits` reads no folder"),
        (["export", "/nowhere", "--to", "onnx", "-o", "new"], "/nowhere does not exist"),
        (["export", "/", "--to", "onxx", "-o", "new"], "there is no format 'onxx'"),
        (["export", "/", "--to", "onnx", "-o", "/tmp"], "/tmp exists"),
        (["export", "/", "--to", "fused", "-o", "/tmp"], "/tmp exists"),
        (["export", "/", "--to", "executorch", "--precision", "fp17", "-o", "new"], "has no fp17"),
        (["predict", "/nowhere", "x.jpg"], "/nowhere does not exist"),
    ],
    ids=lambda x: x if isinstance(x, str) else x[0],
)
def test_refused_without_torch(tmp_path: Path, words: list[str], message: str):
    (tmp_path / "taken" / "checkpoints").mkdir(parents=True)
    done, imported = refused(words, tmp_path)
    assert message in done.stderr
    assert "torch" not in imported
    assert done.returncode in (2, 3, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-c", "quickstart", "--modle", "x"], "did you mean `--model`?"),
        (["train", "-c", "quickstart", "--lr", "-1"], "`lr` must be a number > 0"),
        (["validate", "--lr"], "--lr has no value"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_mistakes_in_a_recipe_are_said_at_once(tmp_path: Path, words: list[str], message: str):
    done, imported = refused(words, tmp_path)
    assert message in done.stderr
    assert not {"torch", "rich", "numpy", "PIL"} & imported, "each takes 0.05 s and more"
    assert done.returncode == 2


def refused(words: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command in a process of its own, and the packages that it imported."""
    code = f"""
import atexit, sys
sys.argv[1:] = {words!r}
atexit.register(lambda: print('imported', *(name for name in sys.modules if '.' not in name)))
import vitcli.__main__
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done, set(done.stdout.splitlines()[-1].split()[1:])
