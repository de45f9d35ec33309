"""The kernels of a run: the faster ones are chosen, remembered, and kept when the run is resumed. No GPU is needed."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitcli.engine import kernels
from vitcli.engine.kernels import KERNELS, choose_kernels
from vitcli.errors import VitcliError
from vitcli.layers.gpu.choice import Choice, apply, kinds_of_layers, measure

pytest.importorskip("triton")


FAILS = -1.0


class Scale(nn.Conv2d):
    """A layer with two kinds of kernels; those that are not PyTorch's add `error`."""

    native = False
    error = 0.0

    def forward(self, input: Tensor) -> Tensor:
        out = super().forward(input)
        if not self.native and self.error == FAILS:
            raise RuntimeError("no C compiler")
        return out if self.native else out + self.error


class Network(nn.Sequential):
    def __init__(self, error: float = 0.0) -> None:
        good, other = Scale(3, 3, 1), Scale(3, 4, 1)
        other.error = error
        super().__init__(good, other, nn.Flatten(), nn.Linear(4 * 16 * 16, 10))


class Clock:
    """Says how long each candidate takes, in the order in which they are timed."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)

    def __call__(self, run) -> float:
        run()
        return next(self.seconds)


GOOD, OTHER = "Conv2d 3x1/1", "Conv2d 4x1/1"
#: native and Triton of two layers, then the network: channels_last, with Triton, NCHW
FASTER = (2, 1, 2, 3, 5, 3, 4)


def measured(clock: Clock, error: float = 0.0, *, nchw: bool = True, has_time=lambda: True):
    context = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
    return measure(Network(error), torch.randn(4, 3, 16, 16), context, clock, may_change_layout=nchw, has_time=has_time)


def test_the_faster_kernels_of_each_layer():
    found = measured(Clock(*FASTER))
    assert found.choice == Choice(True, (GOOD,))
    assert (found.native, found.chosen, found.refused) == (4, 3, ())


def test_never_slower_than_pytorch():
    """Layers that are faster alone, but not in the network."""
    assert measured(Clock(2, 1, 2, 3, 5, 4.1, 4)).choice == Choice(False, ())
    assert measured(Clock(2, 1, 2, 3, 5, 6), nchw=False).choice == Choice(True, ())


def test_kernels_that_are_less_exact_are_refused():
    found = measured(Clock(2, 1, 5, 3, 4), error=0.1)
    assert (found.choice.layers, found.refused) == ((GOOD,), (OTHER,))


def test_kernels_that_fail_are_refused():
    found = measured(Clock(2, 1, 5, 3, 4), error=FAILS)
    assert (found.choice.layers, found.refused) == ((GOOD,), (OTHER,))


def test_no_time_left():
    answers = iter([True, False])
    found = measured(Clock(2, 1, 5, 3, 4), has_time=lambda: next(answers))
    assert (found.choice.layers, found.unmeasured) == ((GOOD,), 1)


def test_measuring_changes_nothing():
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    context = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
    measure(network, torch.randn(4, 3, 16, 16), context, Clock(*FASTER), may_change_layout=True, has_time=lambda: True)
    torch.testing.assert_close(network.state_dict(), before, atol=0, rtol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network[0].native


@pytest.fixture
def run(make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A training whose network has layers with two kinds of kernels, and what it says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def training():
        training = make()
        training.task.network.add_module("0", Scale(3, 4, 4, stride=4))
        training.said = []
        training.reporter.say = training.reporter.note = training.said.append
        return training

    return training


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "vitcli" / "kernels").glob("*.json"))


def test_the_choice_is_remembered_and_recorded(run, tmp_path: Path):
    first, second = run(), run()
    choose_kernels(first, None, Clock(2, 1, 5, 3, 4))
    assert first.facts[KERNELS] == {"channels_last": True, "layers": ["Conv2d 4x4/4"]} | first.facts[KERNELS]
    assert first.channels_last
    assert "1.33 times" in first.said[0]
    choose_kernels(second, None, Clock())
    assert second.facts[KERNELS] == first.facts[KERNELS]
    assert "measured before" in second.said[0]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"channels_last": 1, "layers": []}'])
def test_a_damaged_cache(run, tmp_path: Path, content: str):
    choose_kernels(run(), None, Clock(2, 1, 5, 3, 4))
    (file,) = cached(tmp_path)
    file.write_text(content)
    training = run()
    choose_kernels(training, None, Clock(2, 1, 5, 3, 4))
    assert "written again" in training.said[0]
    assert json.loads(file.read_text())["channels_last"]


def test_a_cache_that_cannot_be_written(run, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    training = run()
    choose_kernels(training, None, Clock(2, 1, 5, 3, 4))
    assert "not remembered" in training.said[-1]
    assert training.facts[KERNELS]["layers"]


def test_a_resumed_run_keeps_its_kernels(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "measure", None)
    training = run()
    choose_kernels(training, {KERNELS: json.loads(json.dumps(Choice(True, ("Conv2d 4x4/4",)).as_json()))})
    assert (training.channels_last, training.task.network[0].native) == (True, False)
    old = run()
    choose_kernels(old, {"step": 3})  # of a version without these kernels
    assert (old.channels_last, old.task.network[0].native) == (False, True)


@pytest.mark.parametrize(
    ("error", "words"),
    [(torch.AcceleratorError("CUDA error: an illegal memory access"), "the GPU failed: CUDA error: an illegal"),
     (torch.OutOfMemoryError("CUDA out of memory"), "memory ran out")],
    ids=["gpu", "memory"],
)  # fmt: skip
def test_measuring_that_loses_the_gpu_or_the_memory(run, error: Exception, words: str):
    training = run()

    def fails(run) -> float:
        raise error

    with pytest.raises(VitcliError, match=words):
        choose_kernels(training, None, fails)
    assert KERNELS not in training.facts


def test_networks_without_such_layers(make):
    training, said = make(), []
    training.reporter.note = said.append
    choose_kernels(training, None, Clock())
    assert KERNELS not in training.facts
    choose_kernels(training, {KERNELS: Choice(True, (GOOD,)).as_json()})  # resumed where Triton is not
    assert "not to the last bit" in said[0]


def test_kinds_are_outermost_layers():
    outer = nn.Sequential(Network(), Scale(3, 3, 1))
    assert {kind: len(layers) for kind, layers in kinds_of_layers(outer).items()} == {GOOD: 2, OTHER: 1}
    apply(Choice(True, (OTHER,)), outer)
    assert [outer[0][0].native, outer[0][1].native, outer[1].native] == [True, False, True]
