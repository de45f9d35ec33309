"""Drop-path and layer scale."""

import pytest
import torch

from vitcli.layers.regularize import DropPath, LayerScale


@pytest.mark.parametrize("compiling", [False, True])
def test_drop_path_drops_samples_and_keeps_the_mean(monkeypatch: pytest.MonkeyPatch, compiling: bool):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 3)
    out = DropPath(0.25)(x)
    per_sample = out.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(out.mean().item() - 1) < 0.03
    assert torch.equal(DropPath(0.25).eval()(x), x)
    assert not DropPath(1.0)(x).any()


def test_layer_scale_keeps_the_dtype():
    scale = LayerScale(3, 1, 1, init=0.5)
    assert scale(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert scale.gamma.shape == (3, 1, 1)
