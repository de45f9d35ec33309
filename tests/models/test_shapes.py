"""Models without values: the same shapes, nothing drawn, nothing imported for it."""

import subprocess
import sys

import pytest
import torch

from vitcli.models.registry import create_model
from vitcli.models.shapes import shapes_only


@pytest.mark.parametrize("name", ["fastvit_t8", "vit_ti_patch16", "fvit"])
def test_the_same_shapes(name: str):
    random_before = torch.get_rng_state()
    with shapes_only():
        empty = create_model(name, num_classes=7, img_size=32)
    assert torch.equal(torch.get_rng_state(), random_before)
    real = create_model(name, num_classes=7, img_size=32)
    shapes = {key: (value.shape, value.dtype) for key, value in real.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in empty.state_dict().items()} == shapes
    assert all(value.is_meta for value in empty.state_dict().values())


def test_no_compiler_is_imported():
    """Of PyTorch; it would take seconds."""
    code = """
import sys
from vitcli.models.registry import create_model
from vitcli.models.shapes import shapes_only
with shapes_only():
    create_model("vit_b_patch16")
    create_model("fastvit_sa12")
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
