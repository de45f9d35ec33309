"""Names that others chose give no orders to the terminal, and look like no message of ours; files keep them."""

import ast
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.text import Text

from tests.support.commands import options
from tests.test_architecture import FILES, PACKAGE
from vitcli.errors import Place, UsageError, paragraph, printable, render
from vitcli.log import Reporter, SafeConsole

#: an escape sequence, C1 controls, a bell, a bidi override, line ends, a BOM, a byte that is no text, markup
HOSTILE = "\x1b[2J\x9b31m\x9d0;x\x07\u202eevil\r\nerror: fake\ufeff\udcff[red]"
SHOWN = r"\x1b[2J\x9b31m\x9d0;x\x07\u202eevil\r\nerror: fake\ufeff\udcff[red]"


def obeyed(text: str) -> list[str]:
    """The characters that a terminal would not just show."""
    return [char for char in text if not char.isprintable() and char != "\n"]


def test_what_is_shown():
    assert printable(HOSTILE) == SHOWN
    assert printable("été 東京\u3000\xa0👍") == "été 東京\u3000\xa0👍"
    assert paragraph(f"1 class: {HOSTILE}\n  a  b") == f"1 class: {SHOWN}\n  a  b".replace(r"\n", "\n  ")


def test_an_error():
    text = str(UsageError(f"no {HOSTILE}", help=HOSTILE)) + render("error", "x", place=HOSTILE)
    assert not obeyed(text)
    assert "\nerror:" not in text
    assert text.count(r"\x1b[2J") == 3


def test_the_marker_is_below_what_it_marks():
    line = "a\tb\x1b: \x1b[0m"
    shown, marker = render("error", "m", place=Place("f", 7, 7, line, 4)).splitlines()[2:]
    assert shown == r"  7 | a\tb\x1b: \x1b[0m"
    assert shown[marker.index("^") :] == r"\x1b[0m"
    assert marker.count("^") == len(r"\x1b[0m")


def test_a_long_line_is_shown_around_the_place():
    lines = render("error", "m", place=Place("f", 1, 500_001, "x" * 500_000 + "y" * 500_000, 500_000)).splitlines()
    assert max(map(len, lines)) < 400
    assert lines[2][lines[3].index("^") - 1 :].startswith("xy")


@pytest.mark.parametrize("thing", [HOSTILE, Text(HOSTILE), Text.assemble(("a", "bold"), HOSTILE)])
def test_a_console(thing: str | Text):
    stream = io.StringIO()
    SafeConsole(file=stream, markup=False, emoji=False, width=500).print(thing)
    assert not obeyed(stream.getvalue())
    assert r"\x1b[2J\x9b31m" in stream.getvalue()


def test_a_reporter(capsys: pytest.CaptureFixture):
    reporter = Reporter(enabled=True)
    reporter.console.width = 500
    reporter.say(HOSTILE)
    reporter.note(HOSTILE)
    reporter.table("title", [(HOSTILE, HOSTILE)])
    text = capsys.readouterr().out
    assert not obeyed(text)
    assert text.count("[red]") == 4, "no markup"
    assert "\nerror:" not in text


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_there_is_no_other_way_to_the_terminal(file: Path):
    """Text is printed by `errors.py`, by consoles of the kind in `terminal.py`, and where the output itself fails.

    And by what an exported folder takes along, which runs without this package and prints nothing that others wrote.
    """
    if file.name in ("errors.py", "terminal.py", "output.py") or file.is_relative_to(PACKAGE / "deploy" / "web"):
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            to_a_process = any(ast.unparse(word).endswith("stdin") for word in node.keywords if word.arg == "file")
            assert to_a_process or called not in ("print", "Console", "sys.stdout.write", "sys.stderr.write"), file


@pytest.fixture
def hostile_folder(tmp_path: Path, image_folder: Path) -> Path:
    """Two classes with names that no one should have."""
    folder = tmp_path / os.fsdecode(b"da\xffta")
    image_folder.rename(folder)
    for split in ("train", "val"):
        (folder / split / "cat").rename(folder / split / HOSTILE)
        (folder / split / "dog").rename(folder / split / ("=<script>[bold]" + "é" * 100))
    return folder


@pytest.mark.slow
def test_hostile_names_train(tmp_path: Path, hostile_folder: Path, vitcli):
    """Classes and folders of any name: the run has the real names, the terminal shows them as text."""
    words = options({"image_resize": 32, "batch_size": 8, "epoch_size": 1, "num_parallel_workers": 0})
    words += ["--class_weights", "auto", "--model", "fvit", "--data_dir", hostile_folder]
    before = set(tmp_path.iterdir())
    done = vitcli("train", *words, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert not obeyed(done.stdout + done.stderr)
    assert r"\x1b[2J\x9b31m" in done.stdout
    assert set(tmp_path.iterdir()) - before == {tmp_path / "run"}
    names = json.loads((tmp_path / "run" / "data.json").read_text())["class_names"]
    assert any(name.startswith("\x1b[2J\x9b31m") for name in names)
    image = next((hostile_folder / "val").rglob("*.png"))
    found = vitcli("predict", "run", image, "--csv", "out.csv", "--json", "out.json")
    assert found.returncode == 0, found.stderr
    assert not obeyed(found.stdout + found.stderr)
    answers = {entry["class"] for entry in json.loads((tmp_path / "out.json").read_text())[0]["predictions"]}
    assert answers == set(names)
    shown = vitcli("data", "show", hostile_folder)
    assert shown.returncode == 0, shown.stderr
    assert not obeyed(shown.stdout + shown.stderr)
    shutil.rmtree(hostile_folder / "val" / HOSTILE)
    (hostile_folder / "train" / HOSTILE / "0.png").write_bytes(b"")
    failed = vitcli("train", *words)
    assert failed.returncode == 3
    assert not obeyed(failed.stdout + failed.stderr)


def test_hostile_keys_and_values(tmp_path: Path, vitcli):
    text = HOSTILE.replace("\udcff", "")
    quoted = json.dumps(text)
    (tmp_path / "recipe.yaml").write_text(f"{quoted}: 1\nmodel: {quoted}\nlr: {quoted}\nbatch_size: {quoted}\n")
    done = vitcli("train", "-c", "recipe.yaml", f"--key{text}=1", f"--lr={text}")
    assert done.returncode == 2
    assert not obeyed(done.stdout + done.stderr)
    assert done.stderr.count("error: ") - done.stderr.count("\n  error: ") >= 4
    assert "\nerror: fake" not in done.stderr
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for words in (["validate", text], ["predict", text, "x.png"], ["recipes", "show", text]):
        done = vitcli(*words)
        assert done.returncode in (2, 3), done.stderr
        assert not obeyed(done.stdout + done.stderr), words


@pytest.mark.parametrize("is_terminal", [False, True])
def test_sentences_are_broken_between_words_and_commands_never(is_terminal: bool):
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=is_terminal, color_system=None, width=20)
    console.say("an interval of [half] the images")
    console.note("of a [bold]name[/bold] in brackets")
    console.next("vitcli validate --ckpt_path runs/[a]", "vitcli report runs/[a]")
    said = ["an interval of [half] the images", "note: of a [bold]name[/bold] in brackets"]
    if is_terminal:
        said = ["an interval of", "[half] the images", "note: of a", "[bold]name[/bold] in", "brackets"]
    commands = ["next: vitcli validate --ckpt_path runs/[a]", "      vitcli report runs/[a]"]
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == said + commands
