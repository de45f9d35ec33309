"""Phases of a command: a spinner or a bar on a terminal, two lines where a long one is piped, nothing on stdout."""

import io
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.commands import options
from tests.support.pty import on_terminal
from vitcli import log, terminal
from vitcli.log import Reporter
from vitcli.terminal import Bars, SafeConsole, hide_bars, phase, show_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    streams = SimpleNamespace(
        stdout=stream, stderr=io.StringIO()
    )  # pytest replaces those of sys itself before each test
    monkeypatch.setattr(terminal, "sys", streams)
    monkeypatch.setattr(log, "sys", streams)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def shown(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_short_phase_in_a_pipe_is_silent(capfd: pytest.CaptureFixture):
    with phase("listing images", 3) as advance:
        advance(3)
    assert capfd.readouterr() == ("", "")


def test_a_long_phase_in_a_pipe_is_announced_on_stderr(monkeypatch, capfd: pytest.CaptureFixture):
    monkeypatch.setattr(terminal, "LONG_SECONDS", 0.05)
    with phase("listing [red]\x1b[2J"):
        time.sleep(0.3)
        assert capfd.readouterr() == ("", "listing [red]\\x1b[2J …\n")
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"listing \[red\]\\x1b\[2J: \d s\n", err)


def test_other_ranks_show_nothing(monkeypatch, on_a_terminal: Terminal):
    monkeypatch.setenv("RANK", "1")
    with phase("listing images"):
        assert Bars.shown is None
    assert on_a_terminal.getvalue() == ""


def test_a_terminal_shows_a_spinner_or_a_bar_and_nothing_stays(on_a_terminal: Terminal):
    with phase("listing images"):
        time.sleep(0.3)
    assert re.search(r"⠋ listing images  0:00:00", shown(on_a_terminal.getvalue()))
    with phase("evaluating", 2000) as advance:
        advance(1500)
        with phase("inner"):  # joins the first one
            assert len(Bars.shown.tasks) == 2
            Bars.shown.refresh()
        assert len(Bars.shown.tasks) == 1
    assert re.search(r"evaluating ━+.*1,500/2,000 0:00:00", shown(on_a_terminal.getvalue()))
    assert Bars.shown is None
    assert on_a_terminal.getvalue().endswith("\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25h\r"), "both lines are erased"


def test_a_phase_that_fails_leaves_no_bars(on_a_terminal: Terminal):
    with pytest.raises(ZeroDivisionError), phase("listing images"):
        1 / 0  # noqa: B018
    assert Bars.shown is None


def test_other_consoles_write_above_the_bars(on_a_terminal: Terminal):
    bars = show_bars(SafeConsole(file=on_a_terminal), stay=True)
    bars.begin("training", 10, completed=5, text="loss 1")
    SafeConsole(file=on_a_terminal).print("note: other")
    assert bars.live.is_started
    hide_bars()
    text = on_a_terminal.getvalue()
    before = text[: text.index("note: other")]
    assert before.endswith("\x1b[2K"), "the bars were erased first"
    assert shown(text).rstrip().endswith("loss 1"), "the last state stays"


@pytest.mark.parametrize(("columns", "lines"), [(80, 2), (140, 1)])
def test_the_text_of_a_bar_fits(monkeypatch, on_a_terminal: Terminal, columns: int, lines: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    console = SafeConsole(file=on_a_terminal)
    bars = Bars(console=console)
    bars.begin("epoch 3/10", 1000, completed=431, text="loss 2.3021  lr 1.00e-03  1,234 img/s  data wait 0%")
    console.print(*bars.get_renderables())
    printed = shown(on_a_terminal.getvalue()).rstrip("\n").split("\n")
    assert len(printed) == lines
    assert max(map(len, printed)) <= columns
    assert "data wait 0%" in printed[-1]


def test_the_loss_stays_behind_the_bar_after_an_evaluation(on_a_terminal: Terminal):
    reporter = Reporter(enabled=True)
    reporter.start(100, 0, text="the first steps")
    reporter.step({"step": 10}, text="loss 1.5")
    with phase("evaluating", 5):
        pass
    reporter.epoch({"step": 10}, text="epoch 1/2  top1 50")
    reporter.close()
    lines = shown(on_a_terminal.getvalue()).replace("\r", "").rstrip().split("\n")
    assert lines[-1].rstrip().endswith("loss 1.5")
    assert any("epoch 1/2  top1 50" in line for line in lines)


@pytest.mark.slow
def test_a_training_on_a_terminal_and_in_a_pipe(tmp_path: Path, image_folder: Path, vitcli):
    words = options({"image_resize": 32, "batch_size": 8, "epoch_size": 1, "num_parallel_workers": 0})
    words += ["--model", "fvit", "--data_dir", image_folder]
    code, text = on_terminal("train", *words, "--run_dir", "run", cwd=tmp_path)
    assert code == 0, text
    for title in ("listing images", "building the model", "evaluating", "epoch 1/1"):
        assert title in shown(text)
    piped = vitcli("train", *words, "--run_dir", "piped")
    assert piped.returncode == 0, piped.stderr
    assert "building" not in piped.stdout
    assert "\x1b" not in piped.stdout
    found = vitcli("predict", "run", image_folder / "val", "--json", "out.json")
    assert len(found.stdout.splitlines()) >= len(json.loads((tmp_path / "out.json").read_text()))
    assert "loading" not in found.stdout
