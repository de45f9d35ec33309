"""A compiled run: its weights are those of the plain one, and its evaluations compile nothing."""

import pytest
import torch

from vitcli.engine.loop import fit
from vitcli.engine.signals import StopFlag
from vitcli.parallel import parts


def test_a_compiled_run_is_the_run(make, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(parts, "inductor", lambda graph, inputs: graph.forward)
    torch._dynamo.reset()
    plain, compiled = make(norm=True, ema=True), make(norm=True, ema=True, compile=True)
    compiled.reporter.console.quiet = False
    for training in (plain, compiled):
        fit(training, StopFlag())
    compiler = compiled.parallel.compiler
    assert compiler is not None
    assert compiler.num_compiled == 1, "the task has no blocks, and an evaluation compiles nothing"
    assert "1 part compiled" in capsys.readouterr().out
    ours, theirs = compiled.task.state_dict(), plain.task.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=1e-5, atol=1e-7), name
