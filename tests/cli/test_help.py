"""`--help` shows the keys that most people set, `--help_all` all of them; piped, each option is one line."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import finished
from tests.support.pty import on_terminal
from vitcli.cli.recipe_keys import PREVIEW_KEYS, TRAIN_KEYS, VALIDATE_KEYS
from vitcli.recipe.describe import help_of
from vitcli.recipe.schema import SECTION_OF, SECTIONS


def names(text: str) -> list[str]:
    """The recipe keys that begin a line."""
    return [name for name in re.findall(r"^  --(\w+)", text, re.M) if name in SECTION_OF]


@pytest.mark.parametrize(
    ("words", "keys"),
    [(["train"], TRAIN_KEYS), (["validate"], VALIDATE_KEYS), (["data", "preview"], PREVIEW_KEYS)],
    ids=lambda x: x[0],
)
def test_common_keys_and_all_keys(vitcli, words: list[str], keys: tuple[str, ...]):
    short = vitcli(*words, "--help").stdout
    own = {"report"} if words == ["validate"] else set()  # an option of the command, which hides the key
    assert [name for name in names(short) if name not in own] == list(keys)
    assert 15 <= len(keys) <= 25
    assert "--help_all" in short
    text = vitcli(*words, "--help-all").stdout
    assert sorted(names(text)) == sorted(SECTION_OF), "every key once"
    wanted = [name for name in SECTION_OF if name not in own]
    assert [name for name in names(text) if name not in own] == wanted, "in the order of the schema"
    titles = re.findall(r"^(\w.*):$", text, re.M)
    assert titles[-len(SECTIONS) :] == list(SECTIONS)


def test_one_line_for_each_key_when_piped(vitcli):
    lines = vitcli("train", "--help_all", COLUMNS="40").stdout.splitlines()
    for name in SECTION_OF:
        (line,) = [line for line in lines if line.startswith(f"  --{name} ")]
        assert " ".join(help_of(name).split()) in line


def test_a_terminal_gets_panels_of_its_width(tmp_path: Path):
    code, text = on_terminal("train", "--help", cwd=tmp_path, columns=80)
    assert code == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "").splitlines()
    assert max(map(len, shown)) == 80
    assert any(line.startswith("╭─ Common recipe keys ") for line in shown)
    assert any(re.match(r"│ --lr FLOAT +Peak learning rate", line) for line in shown)
    assert len(shown) < 90, "a screen or two"


def test_options_of_export_are_apart_from_recipe_keys(vitcli):
    text = vitcli("export", "--help").stdout
    options, keys = text.split("\nRecipe keys:\n")
    assert names(keys)
    assert not names(options) or set(names(options)) <= {"data_dir", "val_split", "device", "batch_size"}
    assert re.search(r"^Arguments:\n  SOURCE ", text, re.M)


def test_the_shell_completes_every_key(tmp_path: Path):
    def completed(words: str) -> list[str]:
        typed = {"COMP_WORDS": f"vitcli {words}", "COMP_CWORD": str(len(words.split()))}
        program = Path(sys.executable).with_name("vitcli")  # completion is for the program by its name
        return finished([program], cwd=tmp_path, timeout=60, _VITCLI_COMPLETE="complete_bash", **typed).stdout.split()

    assert completed("train --lr") == [f"--{name}" for name in SECTION_OF if name.startswith("lr")]
    assert completed("validate --repo") == ["--report"], "the command's own option, and not the key too"
    assert completed("tra") == ["train"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--lr"], "--lr has no value\nhelp: write --lr FLOAT\n"),
        (["train", "--lr", "--opt", "sgd"], "--lr has no value"),
        (["train", "--batch-size=x"], '`batch_size` must be a whole number >= 1, not "x"'),
        (["train", "photos"], "unexpected argument 'photos'"),
        (["validate", "a", "b", "c"], "unexpected argument 'c'"),
        (["validate", "a", "--ckpt-path", "b"], "both a and --ckpt_path name what to validate"),
        (["validate", "--ckpt_path=a", "--ckpt_path", "b", "--ckpt_path", "c"], "--ckpt_path is given 3 times"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_words_that_do_not_fit(vitcli, words: list[str], says: str):
    done = vitcli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
