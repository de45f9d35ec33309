"""Recipes that are too large, too deep, or bombs: refused within a second of work, in little memory, before torch."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, environment
from vitcli.errors import RecipeError
from vitcli.recipe.flat_yaml import MAX_KEYS
from vitcli.recipe.load import load_recipe

#: what each file holds, and a part of the message
FILES: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "60,000 unknown keys": (lambda: "".join(f"k{n}: 1\n" for n in range(60_000)), "more than 1,000 keys"),
    "999 unknown keys": (lambda: "".join(f"weight_decaz{n}: 1\n" for n in range(999)), "and 899 more mistakes"),
    "6,000 lists": (lambda: "lr: " + "[" * 6_000 + "]" * 6_000, "nested too deep"),
    "6,000 mappings": (lambda: "lr: " + "{a: " * 6_000 + "1" + "}" * 6_000, "nested too deep"),
    "1,300 levels by indentation": (lambda: "".join(" " * n + "a:\n" for n in range(1_300)), "nested too deep"),
    "6,000 open lists": (lambda: "lr: " + "[" * 6_000, "nested too deep"),
    "400,000 values": (lambda: "betas: [" + "1," * 400_000 + "1]", "more than 30,000 values"),
    "a key of 900,000 characters": (lambda: "a" * 900_000 + ": 1", "is not YAML"),
    "a quoted key of 900,000 characters": (lambda: '? "' + "a" * 900_000 + '"\n: 1', "(900,000 characters)"),
    "a value of 900,000 characters": (lambda: "model: " + "a" * 900_000, "(900,002 characters)"),
    "100 MB": (lambda: b"lr: 1\n" * 17_000_000, "larger than 1,000,000 bytes"),
    "an alias bomb": (
        lambda: "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{n}: &b{n} [*a,*a,*a,*a,*a]\n" for n in range(50)),
        "anchors (&) and aliases (*)",
    ),
    "code": (lambda: "lr: !!python/object/apply:os.mkdir ['executed']", "is not allowed"),
    "tabs": (lambda: "lr:\n\t- 1", "is not YAML"),
    "UTF-16": (lambda: "lr: 1\n".encode("utf-16"), "not UTF-8"),
    "NUL": (lambda: "lr: 1\0", "control character"),
    "a BOM": (lambda: "\ufefflrr: 1", "did you mean `lr`"),
}

#: prints of each file the seconds and the peak memory (MiB) that reading it takes, and the message
READER = """
import json, resource, sys, time
from vitcli.errors import VitcliError
from vitcli.recipe.load import load_recipe
load_recipe("quickstart")
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sys.argv[1:]:
    start = time.process_time()
    try:
        load_recipe(file)
    except VitcliError as error:
        text = str(error)
    seconds = time.process_time() - start
    print(json.dumps([seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) / 1024, text]))
assert "torch" not in sys.modules
"""


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, 400 * 2**20))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float, str]]:
    """Of each of FILES, read one after the other by one process whose memory is limited."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, (content, _) in enumerate(FILES.values()):
        made = content()
        (folder / f"{number}.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
    files = [f"{number}.yaml" for number in range(len(FILES))]
    settings: dict[str, Any] = {
        "cwd": folder,
        "env": environment(PYTHONPATH=str(ROOT)),
        "preexec_fn": limited,
        "timeout": 120,
    }
    done = subprocess.run(
        [sys.executable, "-c", READER, *files], capture_output=True, text=True, check=False, **settings
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files), "nothing was executed"
    return dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused_quickly(name: str, outcomes: dict[str, tuple[float, float, str]]):
    seconds, mebibytes, text = outcomes[name]
    assert FILES[name][1] in text, text[:2000]
    assert seconds < 2, "of the processor; one on an idle machine"
    assert mebibytes < 150
    assert len(text) < 100_000


def test_a_recipe_with_a_weight_for_each_of_many_classes_is_none_of_them(tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text("class_weights: [" + "0.12345678, " * 21_840 + "1.0]")
    assert len(load_recipe(file).loss.class_weights or ()) == 21_841


def test_many_unknown_keys_from_elsewhere():
    """From the command line, or a checkpoint: the names are compared a limited number of times."""
    start = time.process_time()
    with pytest.raises(RecipeError) as error:
        load_recipe(None, {f"weight_decaz{number}": "1" for number in range(60 * MAX_KEYS)})
    assert len(error.value.problems) == 60 * MAX_KEYS
    assert "did you mean `--weight_decay`?" in str(error.value)
    assert time.process_time() - start < 3
