"""Recipes are strict: every mistake is reported with its place and a remedy; YAML 1.1's pitfalls are avoided."""

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.commands import environment
from vitcli.errors import Place, RecipeError
from vitcli.recipe import describe
from vitcli.recipe.describe import expectation, metavar
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import SECTION_OF, SECTIONS, extra, key
from vitcli.recipe.write import recipe_text


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


#: one line of a recipe -> what the message must contain, and the column it points at
MISTAKES = [
    ("weigth_decay: 0.05", "did you mean `weight_decay`?", 1),
    ("lr: fast", "`lr` must be a number > 0, not \"fast\"", 5),
    ("lr: -1", "`lr` must be a number > 0, not -1", 5),
    ("lr: .nan", "`lr` must be a number > 0", 5),
    ("lr: .inf", "`lr` must be a number > 0", 5),
    ("batch_size: 12.5", "must be a whole number >= 1, not 12.5", 13),
    ("batch_size: true", "must be a whole number >= 1, not true", 13),
    ("batch_size: 0", "must be a whole number >= 1, not 0", 13),
    ("batch_size: [1, 2]", "must be a whole number >= 1, not [1, 2]", 13),
    ("batch_size:", "must be a whole number >= 1, not null", 12),
    ("model: fastvit_t9", "did you mean `fastvit_t8`?", 8),
    ("opt: adamwww", "did you mean `adamw`?", 6),
    ("scheduler: cosine", "`scheduler` must be one of cosine_decay", 12),
    ("dataset: cifar", "must be one of imagefolder", 10),
    ("loss: ce", "did you mean `CE`?", 7),
    ("amp: O2", "must be one of off, auto, bf16, fp16", 6),
    ("distribute: maybe", "must be true or false or auto", 13),
    ("hflip: 1.5", "must be a number >= 0 and <= 1, not 1.5", 8),
    ("ema: perhaps", "must be true or false", 6),
    ("scale: 0.5", "must be a list of two numbers", 8),
    ("scale: [0.5]", "must be a list of two numbers", 8),
    ("scale: [1.0, 0.08]", "write [0.08, 1]", 8),
    ("mean: [0.5, 0.5]", "`mean` has 2 values, but in_channels is 3", 7),
    ("auto_augment: rand-m9-zz3", "zz3", 15),
    ("color_jitter: [0.4, 0.4]", "cannot be [0.4, 0.4]", 15),
    ("color_jitter: [0.1, -0.2, 0.3]", "give one number, three", 15),
    ("color_jitter: [0.4, 0.4, 0.4, 0.6]", "at most 0.5", 15),
    ("auto_augment: rnd-m9", "unknown policy 'rnd'", 15),
    ("in_channels: 0", "must be a whole number >= 1", 14),
    ("pretrained: true", "not downloaded automatically", 13),
    ("warmup_epochs: 90", "leave nothing of epoch_size 90", 16),
    ("resume: auto", "add --run_dir DIR", 9),
    ("optimizer: {lr: 1}", "a recipe is flat", 12),
    ("lr: !!python/object/apply:os.system [ls]", "not allowed", 5),
    ("lr: !custom 3", "not allowed", 5),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message", "column"), MISTAKES, ids=[line[:30] for line, _, _ in MISTAKES])
def test_mistake(tmp_path: Path, line: str, message: str, column: int):
    path = write(tmp_path, f"# a comment\n{line}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert message in f"{problem.message} {problem.help}"
    assert isinstance(problem.place, Place)
    assert (problem.place.file, problem.place.line, problem.place.column) == (str(path), 2, column)
    assert f"{path}:2:{column}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_at_once(tmp_path: Path):
    """Every line of the table that is wrong by itself, in one file: all of them are reported, in order."""
    chosen = {line.split(":")[0]: line for line, _, _ in MISTAKES if "resume" not in line and "warmup" not in line}
    lines = list(chosen.values())
    path = write(tmp_path, "\n".join(lines))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, {"epocs": "3", "momentum": "x"})
    places = [problem.place for problem in caught.value.problems]
    assert [p.line for p in places if isinstance(p, Place)] == list(range(1, len(lines) + 1))
    assert len(lines) > 15
    assert sum("command line" in str(place) for place in places) == 2


BROKEN_FILES = [
    (b"lr: 1e-3\nlr: 2e-3\n", "already set on line 1"),
    (b"- a\n- b\n", "a list of `key: value` lines"),
    (b"lr: 'open\n", "not YAML"),
    (b"\tlr: 1\n", "not YAML"),
    (b"lr: &a 1\nmin_lr: *a\n", "anchors"),
    (b"scale: " + b"[" * 3000, "nested too deep"),
    ("lr: 1".encode("utf-16"), "not UTF-8"),
    (b"lr: 1\x00", "control character"),
    (b"# " + b"x" * 1_000_001, "larger than"),
    (b"a: 1\n---\nb: 2\n", "not YAML"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN_FILES, ids=[message for _, message in BROKEN_FILES])
def test_broken_file(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="recipe"):
        load_recipe(path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


def test_yaml_1_2(tmp_path: Path):
    """1e-3 is a number, `no` a word, 010 ten, 12:30 text; a BOM and Windows line ends are accepted."""
    path = tmp_path / "recipe.yaml"
    path.write_bytes("\ufefflr: 1e-3\r\nval_split: no\r\nseed: 010\r\ntrain_split: 12:30\r\nmin_lr: 5E-6\r\n".encode())
    recipe = load_recipe(path)
    assert recipe.scheduler.lr == 1e-3
    assert recipe.dataset.val_split == "no"
    assert recipe.system.seed == 10
    assert recipe.dataset.train_split == "12:30"
    assert recipe.scheduler.min_lr == 5e-6


def test_empty_file_is_all_defaults(tmp_path: Path):
    assert load_recipe(write(tmp_path, "")).flat() == load_recipe(None).flat()


def test_precedence_and_origins(tmp_path: Path):
    path = write(tmp_path, "lr: 1e-3\nbatch_size: 32\n")
    recipe = load_recipe(
        path, {"lr": "2e-3", "scale": "0.5,1.0", "ema": "yes", "val_split": "1e3", "auto_augment": "none"}
    )
    assert recipe.scheduler.lr == 2e-3
    assert recipe.origins["lr"] == "command line"
    assert recipe.origins["batch_size"] == Place(str(path), 2, 13, "batch_size: 32", 2)
    assert "epoch_size" not in recipe.origins
    assert recipe.augmentation.scale == (0.5, 1.0)
    assert recipe.optimizer.ema is True
    assert recipe.dataset.val_split == "1e3", "keys that take text keep it as typed"
    assert recipe.augmentation.auto_augment is None
    chosen = load_recipe(None, {"lr_scale": "none", "model": "vit_ti_patch16", "pos_embed": "none"})
    assert (chosen.scheduler.lr_scale, chosen.model.pos_embed) == ("none", "none"), "a word of the key's own"
    assert load_recipe(None, {"mean": "0.5", "std": "0.25", "in_channels": "1"}).augmentation.mean == (0.5,)


def test_frozen_and_changed():
    recipe = load_recipe("quickstart")
    with pytest.raises(Exception, match="frozen"):
        recipe.scheduler.lr = 1  # type: ignore[misc]
    assert recipe.changed(lr=0.5).scheduler.lr == 0.5
    with pytest.raises(RecipeError, match="lr"):
        recipe.changed(lr=-1)


def test_written_recipe_repeats_itself(tmp_path: Path):
    """RUN/recipe.yaml holds every value; loading it gives the same recipe, without notes."""
    recipe = load_recipe("fastvit_sa24", {"data_dir": "/x", "ema": "False", "run_dir": "r"})
    path = tmp_path / "again.yaml"
    path.write_text(recipe_text(recipe), encoding="utf-8")
    again = load_recipe(path)
    assert again.flat() == recipe.flat() | {"run_dir": None}
    assert again.notes == recipe.notes


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_loads_or_is_explained(tmp_path: Path, content: bytes):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    with suppress(RecipeError):  # any other exception is a mistake of ours
        load_recipe(path)


def test_every_key_is_described():
    names = [name for section in SECTIONS.values() for name in section.model_fields]
    assert len(names) == len(set(names)) == len(SECTION_OF), "a key stands in one section only"
    for name in names:
        field = SECTIONS[SECTION_OF[name]].model_fields[name]
        assert field.description
        assert field.description.endswith(".")
        assert expectation(name)
        assert metavar(name)
        assert set(extra(name)) == {"free", "registry", "own"}


@pytest.fixture
def key_of_names(monkeypatch: pytest.MonkeyPatch):
    """A schema that also has the key `orders`, a list of names of optimizers."""

    class WithOrders(SECTIONS["system"]):
        orders: tuple[str, ...] | None = key(None, "For this test.", registry="optimizers")

    monkeypatch.setitem(SECTIONS, "system", WithOrders)
    monkeypatch.setitem(SECTION_OF, "orders", "system")
    describe._properties.cache_clear()
    yield
    describe._properties.cache_clear()


@pytest.mark.parametrize("typed", ["sgd,adamw", " sgd, adamw ", "[sgd, adamw]"])
def test_a_list_of_names(tmp_path: Path, key_of_names: None, typed: str):
    assert load_recipe(write(tmp_path, "orders: [sgd, adamw]\n")).get("orders") == ("sgd", "adamw")
    assert load_recipe(None, {"orders": typed}).get("orders") == ("sgd", "adamw")
    assert load_recipe(None, {"orders": "sgd"}).get("orders") == ("sgd",)
    assert load_recipe(None, {"orders": "none"}).get("orders") is None
    assert load_recipe(None, orders=("sgd",)).get("orders") == ("sgd",)
    assert load_recipe(write(tmp_path, "orders: null\n")).get("orders") is None
    assert metavar("orders") == "NAMES"


@pytest.mark.parametrize(
    ("line", "column", "shown", "help"),
    [
        ("orders: [sgd, adamww]", 9, '["sgd", "adamww"]', "did you mean `adamw`?"),
        ("orders: [nestrov, sgd]", 9, '["nestrov", "sgd"]', "did you mean `nesterov`?"),
        ("orders: [sgd, 3]", 9, '["sgd", 3]', None),
        ("orders: [[sgd]]", 9, '[["sgd"]]', None),
        ("orders: sgd", 9, '"sgd"', None),
    ],
)
def test_each_of_a_list_of_names_is_checked(
    tmp_path: Path, key_of_names: None, line: str, column: int, shown: str, help: str | None
):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, line + "\n"))
    (problem,) = caught.value.problems
    assert problem.message.startswith("`orders` must be a list of names from adamw, adam, nadam, sgd")
    assert problem.message.endswith(f"or null, not {shown}")
    assert problem.help == help
    assert isinstance(problem.place, Place)
    assert problem.place.column == column


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["recipes", "validate", "fastvit_t8"],
        ["train", "-c", "quickstart", "--lrr", "1"],
    ],
)
def test_no_torch_before_it_is_needed(words: list[str]):
    code = f"""
import atexit, sys
sys.argv[1:] = {words!r}
atexit.register(lambda: print('torch' in sys.modules))
import vitcli.__main__
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("False"), done.stdout + done.stderr


def test_a_recipe_that_is_written_is_read_back(tmp_path: Path):
    """Paths may hold any bytes, and names any characters."""
    for folder in (os.fsdecode(b"/a\xff\xfe"), "/\x1b[31m\x9b\n\x85\u202e\ufeff👍\U000e0001", "/'\"\\ #: x"):
        file = tmp_path / "recipe.yaml"
        file.write_text(recipe_text(load_recipe(None, data_dir=folder)), encoding="utf-8")
        assert str(load_recipe(file).dataset.data_dir) == folder
