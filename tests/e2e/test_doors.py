"""All ways to start: Python, `python train.py`, `python validate.py`, `torchrun -m vitcli`, `vitcli models`."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vitcli
from tests.support.commands import ROOT, environment, finished, options, python_m

TINY = {"dataset": "synthetic", "image_resize": 32, "batch_size": 32, "epoch_size": 1, "num_samples": 128, "lr": 2e-3}


def door(name: str, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / name, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_python_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "fastvit_t8" in vitcli.list_models()
    result = vitcli.train(vitcli.load_recipe(None, **TINY, num_parallel_workers=0))
    assert result.run_dir.parent.name == "runs"
    assert result.step == 4
    scores = vitcli.validate(vitcli.load_recipe(ckpt_path=result.run_dir, num_parallel_workers=0))
    assert scores["num_images"] == 256
    assert scores["top1"] == result.last
    assert 0 <= scores["top1"] <= scores["top5"] <= 100
    assert scores["nll"] > 0
    model = vitcli.create_model("fastvit_t8", num_classes=10).eval()
    vitcli.load_weights(model, result.run_dir / "checkpoints" / "best")
    x = torch.randn(2, 3, 32, 32)
    for fold in ("standard", "full"):
        assert torch.allclose(vitcli.reparameterize(model, fold=fold)(x), model(x), atol=1e-5)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = vitcli.trian


@pytest.mark.slow
def test_fine_tuning_story(tmp_path: Path, vitcli, image_folder: Path):
    """Pretrain, fine-tune on another data set from that run, validate fused; as a new user would type it."""
    first = door("train.py", *options(TINY), "--run_dir", "pretrained", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    words = {"data_dir": image_folder, "image_resize": 32, "batch_size": 8, "epoch_size": 3, "lr": 2e-3}
    second = door(
        "train.py", "-c", "fastvit_t8", *options(words), "--amp", "off", "--distribute", "False",
        "--global_batch_size", 8, "--warmup_epochs", 0, "--cooldown_epochs", 0,
        "--ckpt_path", "pretrained", "--run_dir", "tuned", cwd=tmp_path,
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "the file has 10 classes, and none of them is one of the 2 of the data" in second.stdout
    assert "8/1024" in second.stdout, "the scaled learning rate is printed with its factors"
    for fold in ("none", "standard", "full"):
        run = partial(door, "validate.py", cwd=tmp_path) if fold == "none" else partial(vitcli, "validate")
        done = run("--ckpt_path", "tuned", "--fold", fold, "--json", f"{fold}.json")
        assert done.returncode == 0, done.stderr
        for label in ("top-1", "top-5", "NLL", "images"):
            assert label in done.stdout
    plain, full = (json.loads((tmp_path / f"{fold}.json").read_text()) for fold in ("none", "full"))
    assert plain["correct1"] == full["correct1"]
    assert plain["nll"] == pytest.approx(full["nll"], abs=1e-4)
    raw = vitcli("validate", "--ckpt_path", "tuned", "--use_ema", "False")
    assert raw.returncode == 0, raw.stderr


@pytest.mark.slow
def test_keys_are_canonical_under_compile_and_ddp(tmp_path: Path, torchrun):
    """A checkpoint of a compiled, distributed run has the names of the bare model."""
    plugin = ROOT / "tests" / "e2e" / "norm_free.py"
    words = options({"model": "norm_free", "epoch_size": 1, "num_samples": 64, "batch_size": 16, "compile": True})
    done = torchrun(2, "vitcli", "train", "-c", "quickstart", "--plugin", plugin, "--run_dir", "run", *words)
    assert done.returncode == 0, done.stderr
    names = load_file(tmp_path / "run" / "checkpoints" / "best" / "model.safetensors").keys()
    assert set(names) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_fastvit_is_compiled_on_a_cpu(tmp_path: Path):
    """Its backward pass, too, in a process of its own: PyTorch has crashed there."""
    words = options({"compile": True, "epoch_size": 1, "num_samples": 128, "num_parallel_workers": 0, "run_dir": "run"})
    done = finished(python_m("vitcli", "train", "-c", "quickstart", *words), cwd=tmp_path, timeout=1700)
    assert done.returncode == 0, done.stderr
    assert " compiled" in done.stdout


def test_models(vitcli):
    listed = vitcli("models", "ls", "fastvit_t*").stdout
    assert "4,026,232" in listed
    assert "3,996,040" in listed
    assert "0.685" in listed
    assert "sa12" not in listed
    shown = vitcli("models", "show", "fastvit_t8", "--num_classes", 10).stdout
    assert "3,264,922" in shown
    assert "(48, 64, 64)" in shown
    unknown = vitcli("models", "show", "fastvit_t9")
    assert unknown.returncode == 2
    assert "fastvit_t8" in unknown.stderr


def test_installed_command_and_version():
    command = Path(sys.executable).with_name("vitcli")
    done = subprocess.run([command, "--help"], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "train" in done.stdout
