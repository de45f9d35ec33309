"""What a checkpoint holds and how it comes back: the former format, a newer one, memory layouts, a task's own state."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.e2e.test_resume import metrics
from vitcli.catalog import OPTIMIZERS
from vitcli.cli import main
from vitcli.data import pixels
from vitcli.engine import build, build_task, saving
from vitcli.engine.resume import ResumePoint
from vitcli.engine.state import optimizer_tensors, restore, restore_optimizer
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.optim.optimizers import build_optimizer, drop_step_if
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import write_manifest

GOLDEN = Path(__file__).parent / "golden"


def test_a_checkpoint_of_the_former_format_continues(tmp_path: Path, capsys, monkeypatch):
    """format1 was written by vitcli before tasks had state of their own; format1_after is where that version ended.

    It resized by Pillow, which rounds a little differently.
    """
    monkeypatch.setattr(pixels, "_MODES", {})
    run = shutil.copytree(GOLDEN / "format1", tmp_path / "run")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--resume", str(run)])
    assert "continuing at step 3" in capsys.readouterr().out
    for stem in ("model", "ema"):
        expected = load_file(GOLDEN / "format1_after" / f"{stem}.safetensors")
        found = load_file(run / "checkpoints" / "step-00000008" / f"{stem}.safetensors")
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=1e-5), name
    expected, found = metrics(GOLDEN / "format1_after"), metrics(run)[3:]
    for line, other in zip(expected, found, strict=True):
        other.pop("raw_top1", None)  # younger than the golden run
        assert other == {
            name: value if name == "kind" else pytest.approx(value, rel=1e-4) for name, value in line.items()
        }


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path, vitcli):
    run = shutil.copytree(GOLDEN / "format1", tmp_path / "run")
    file = run / "checkpoints" / "step-00000003" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    write_manifest(file.parent)
    for words, code in ((["train", "--resume", run], 4), (["validate", "--ckpt_path", run], 3)):
        done = vitcli(*words)
        assert done.returncode == code, done.stderr
        assert "newer" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("device", ["cpu", "mps"], ids=["fused", "unfused"])
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_moments_come_back_in_the_layout_of_their_parameters(opt: str, device: str):
    """A file has tensors row by row; a network in channels_last must not pair its elements with the wrong moments.

    `device` chooses torch's fused kernels, which refuse a moment that has other strides on a GPU, or our own classes.
    """

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 64, 5), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 80, 1))
        module.to(memory_format=torch.channels_last)
        groups = param_groups(module, weight_decay=0.1, weight_decay_filter="auto")
        return module, build_optimizer(Section(opt=opt), groups, torch.device(device), module)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for p in module.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape))
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        drop_step_if(optimizer, torch.tensor(False))
        optimizer.step()

    one, optimizer = make()
    step(one, optimizer, 1)
    saved = {name: value.contiguous().clone() for name, value in optimizer_tensors(optimizer, one).items()}
    weights = {name: value.contiguous().clone() for name, value in one.state_dict().items()}
    step(one, optimizer, 2)
    other, restored = make()
    other.load_state_dict(weights)
    restore_optimizer(restored, other, saved)
    step(other, restored, 2)
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.stride() == q.stride(), name
        for field, value in restored.state[q].items():
            assert value.shape != q.shape or value.stride() == q.stride(), (name, field)
            assert value.stride() == optimizer.state[p][field].stride(), (name, field)


def test_a_run_in_channels_last_comes_back_in_it(make, monkeypatch):
    """Weights, their average, moments and gradients have the strides of the uninterrupted run, and its bits.

    Of a task with a second network, too. The choice of the layout is for GPUs; a CPU can train this network in it.
    """
    for module in (build, build_task):
        monkeypatch.setattr(module, "lies_by_pixel", lambda recipe, device: True)
    keys = {"channels_last": True, "norm": True, "opt": "adamw", "ema": True, "task": "byol", "projector_dim": 8}
    keys |= {"projector_hidden_dim": 8, "predictor_hidden_dim": 8, "evaluate": ["collapse"]}
    whole = make(**keys)
    batches = iter(whole.batches(start_step=0))
    train_step(whole, batches)
    saving.save(whole)
    saving.settle(whole)
    again = make(**keys)
    folder = whole.run_dir / "checkpoints" / "step-00000001"
    restore(again, ResumePoint(folder, read_json(folder / "state.json")))
    train_step(whole, batches)
    train_step(again, iter(again.batches(start_step=1)))
    ours, theirs = tensors_of(again), tensors_of(whole)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
        assert value.stride() == theirs[name].stride(), name
        assert value.ndim != 4 or value.is_contiguous(memory_format=torch.channels_last), name


def tensors_of(training: Training) -> dict[str, torch.Tensor]:
    """All that a checkpoint holds."""
    assert training.ema
    average = {f"ema/{name}": value for name, value in training.ema.model.state_dict().items()}
    return training.task.state_dict() | average | optimizer_tensors(training.optimizer, training.task)
