"""What a checkpoint holds and how it comes back: the former format, a newer one, memory layouts, a task's own state."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.e2e.test_resume import metrics
from vitcli.cli import main
from vitcli.data import pixels
from vitcli.engine.state import optimizer_tensors, restore_optimizer
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


@pytest.mark.parametrize("opt", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("fused", [False, True])
def test_moments_come_back_in_the_layout_of_their_parameters(tmp_path: Path, opt: type, fused: bool):
    """A file has tensors row by row; a network in channels_last must not pair its elements with the wrong moments."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        options = {"momentum": 0.9} if opt is torch.optim.SGD else {}
        return module, opt(module.parameters(), lr=0.1, fused=fused, **options)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for p in module.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape))
        optimizer.step()

    one, optimizer = make()
    step(one, optimizer, 1)
    saved = {name: value.contiguous().clone() for name, value in optimizer_tensors(optimizer, one).items()}
    weights = {name: value.clone() for name, value in one.state_dict().items()}
    step(one, optimizer, 2)
    other, restored = make()
    other.load_state_dict(weights)
    restore_optimizer(restored, other, saved)
    for name, p in other.named_parameters():
        for value in restored.state[p].values():
            assert value.ndim != 4 or value.stride() == p.stride(), name
    step(other, restored, 2)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
