"""Rank 0 looks for the images and tells the others, however long it takes; a run remembers where they are."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.commands import finished, options, python_m
from vitcli import load_recipe, train
from vitcli.data import find_images, listings
from vitcli.engine.opened_data import LISTING
from vitcli.errors import ResumeError

TINY = {"model": "vit_ti_patch16", "image_resize": 32, "patch_size": 16, "depth": 1, "epoch_size": 1}


def two_ranks(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    launcher = python_m("torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    return finished([*launcher, "--no_python", *command], cwd=cwd, timeout=120, **env)


@pytest.mark.slow
def test_others_wait_longer_than_the_timeout(tmp_path: Path):
    program = """
        import os, time
        from vitcli.distributed import decided_on_main, joined
        from vitcli.errors import DataError
        def say(*words):  # in one piece: the other rank writes to the same pipe
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())
        def fail():
            raise DataError("no such thing")
        with joined("cpu", True) as world:
            say(world.rank, decided_on_main(lambda: time.sleep(5) or os.environ["RANK"]))
            try:
                decided_on_main(fail)
            except DataError as error:
                say(world.rank, error.message)
    """
    (tmp_path / "wait.py").write_text(textwrap.dedent(program))
    done = two_ranks(sys.executable, "wait.py", cwd=tmp_path, VITCLI_TIMEOUT_SECONDS="3")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0", "0 no such thing", "1 0", "1 no such thing"]


def can_mount() -> bool:
    return not subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs mount namespaces")
def test_a_rank_with_other_images(tmp_path: Path, image_folder: Path):
    """As on a machine whose disk has another copy of the data: one image is larger."""
    image_folder.rename(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    changed = next((tmp_path / "other" / "train").rglob("*.png"))
    changed.write_bytes(changed.read_bytes() + b"\0")
    mounted = 'mount --bind other data && exec "$@"'
    (tmp_path / "start.sh").write_text(f'[ $RANK = 1 ] && exec unshare -rm sh -c \'{mounted}\' sh "$@"\nexec "$@"\n')
    words = ["train", "--data_dir", "data", *options(TINY), "--batch_size", "4", "--run_dir", "run"]
    done = two_ranks("sh", "start.sh", sys.executable, "-m", "vitcli", *words, cwd=tmp_path)
    assert done.returncode != 0
    assert "rank 1 on " in done.stderr
    assert "does not see the images that rank 0 found" in done.stderr


def test_a_run_remembers_where_its_images_are(tmp_path: Path, image_folder: Path, monkeypatch):
    monkeypatch.setattr(listings, "SMALLEST", 1)
    monkeypatch.setattr(listings, "_SETTLED_NS", 0)
    recipe = load_recipe(None, data_dir=image_folder, **TINY, batch_size=4, run_dir=tmp_path / "run")
    train(recipe)
    assert (tmp_path / "run" / LISTING).is_file()
    with monkeypatch.context() as patch:
        patch.setattr(find_images, "entries", None)  # whoever reads a folder calls it
        train(load_recipe(tmp_path / "run" / "recipe.yaml", resume=str(tmp_path / "run")))
    next((image_folder / "train").rglob("*.png")).unlink()
    with pytest.raises(ResumeError, match="the data changed"):
        train(load_recipe(tmp_path / "run" / "recipe.yaml", resume=str(tmp_path / "run")))
