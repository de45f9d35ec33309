"""The sizes in the catalog are those of the built models, and of arithmetic by hand."""

from itertools import product

import pytest
import torch

from tests.models.test_fastvit import SIZES
from vitcli.catalog import Sizes, model_info
from vitcli.models.registry import create_model
from vitcli.models.sizes import measured_sizes, num_parameters

#: width and depth (arXiv 2010.11929, table 1; 2106.10270, table 2; M: timm's vit_medium)
SHAPES = {"ti": (192, 12), "s": (384, 12), "m": (512, 12), "b": (768, 12), "l": (1024, 24), "h": (1280, 32)}


@pytest.mark.parametrize(("size", "patch"), list(product(SHAPES, (32, 16, 14))))
def test_vit(size: str, patch: int):
    """In the last block only the class token asks, passes the MLP and reaches the head."""
    dim, depth = SHAPES[size]
    num_patches = (224 // patch) ** 2
    num_tokens = num_patches + 1
    block = 12 * num_tokens * dim**2 + 2 * num_tokens**2 * dim
    last_block = (2 * num_tokens + 10) * dim**2 + 2 * num_tokens * dim
    macs = num_patches * 3 * patch**2 * dim + (depth - 1) * block + last_block + 1000 * dim
    with torch.device("meta"):
        count = num_parameters(create_model(f"vit_{size}_patch{patch}"))
    assert model_info(f"vit_{size}_patch{patch}").sizes == Sizes(count, count, round(macs / 1e9, 3))


@pytest.mark.parametrize("name", SIZES)
def test_fastvit(name: str):
    """`test_fastvit.py` compares its table with the models."""
    parameters, fused, _, _, _, _, gmacs = SIZES[name]
    assert model_info(name).sizes == Sizes(parameters, fused, gmacs)


@pytest.mark.parametrize("name", ["fvit", "fastvit_t8", "vit_ti_patch32"])
def test_sizes_are_measured_where_the_catalog_has_none(name: str):
    expected = model_info(name).sizes
    assert expected is not None
    gmacs = pytest.approx(expected.gmacs, abs=5e-4)
    assert measured_sizes(name) == Sizes(expected.num_parameters, expected.num_fused_parameters, gmacs)
