"""A run of shards is the run of replicas up to rounding: losses, counts, checkpoints; each continues the other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.test_resume import metrics
from tests.parallel import train_both
from tests.support.commands import options
from vitcli.errors import RecipeError
from vitcli.recipe.load import load_recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "cases", "tolerance"),
    [
        (2, ["adamw", "accumulated"], 1e-5),
        (4, ["frozen"], 1e-5),
        (2, ["bf16"], 5e-3),  # AdamW turns roundings of gradients that are 0 but for them into whole steps
        pytest.param(2, ["byol"], 5e-3, marks=pytest.mark.soak),
        pytest.param(2, ["fastvit", "rmsprop"], 1e-5, marks=pytest.mark.soak),
        pytest.param(2, ["adagrad"], 1e-4, marks=pytest.mark.soak),  # its first step is the sign of the gradient
    ],
)
def test_shards_equal_replicas(tmp_path: Path, torchrun, num_ranks: int, cases: list[str], tolerance: float):
    """Also 31 validation images by batches of 5, so that one rank has a batch more than another."""
    done = torchrun(num_ranks, train_both.__name__, tmp_path, *cases)
    assert done.returncode == 0, done.stderr
    for case in cases:
        ddp = tmp_path / case / "ddp"
        for other in ("fsdp", "ddp_fsdp", "fsdp_ddp"):
            _assert_equal_runs(ddp, tmp_path / case / other, tolerance)


def _assert_equal_runs(one: Path, other: Path, tolerance: float) -> None:
    for a, b in zip(metrics(one), metrics(other), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            counted = name == "kind" or name.endswith(("top1", "top5"))
            assert b[name] == (value if counted else pytest.approx(value, rel=tolerance)), (other, name, a, b)
    last = Path("checkpoints", "step-00000006")
    files = {path.name for path in (one / last).iterdir()}
    assert files == {path.name for path in (other / last).iterdir()}
    for name in files - {"state.json", "MANIFEST.json"}:
        tensors, others = load_file(one / last / name), load_file(other / last / name)
        assert {key: value.shape for key, value in tensors.items()} == {k: v.shape for k, v in others.items()}
        a, b = (torch.cat([t[key].float().flatten() for key in tensors]) for t in (tensors, others))
        assert (a - b).norm() < 10 * tolerance * a.norm(), (other, name)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"opt": "lamb"}, "`opt: lamb` needs each tensor whole"),
        ({"opt": "muon"}, "`opt: muon` needs each tensor whole"),
        ({"opt": "adamw_8bit"}, "`opt: adamw_8bit` needs each tensor whole"),
        ({"quantize": "int8_qat"}, "does not simulate int8"),
    ],
)
def test_what_shards_cannot_do_is_refused(keys: dict[str, str], reason: str):
    with pytest.raises(RecipeError) as error:
        load_recipe(None, parallel="fsdp", **keys)
    assert any(reason in str(problem) for problem in error.value.problems)


def test_one_process_has_nothing_to_share(tmp_path: Path, vitcli):
    keys = {"dataset": "synthetic", "num_samples": 8, "image_resize": 32, "batch_size": 8, "epoch_size": 1}
    said = vitcli("train", *options(keys), "--parallel", "fsdp", "--dry_run", "True")
    assert said.returncode == 0, said.stderr
    assert "`parallel: fsdp` has no effect with one process" in said.stdout
