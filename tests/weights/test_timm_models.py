"""Every ViT of timm, small and with random weights: the same logits here, or a refusal with the reason.

The seven FastViTs are compared in tests/models/test_fastvit.py.
"""

from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf

from tests.support.tensors import randomized
from vitcli.errors import WeightsError
from vitcli.networks.opened import open_network
from vitcli.weights.timm_names import difference_of, facts_of

VITS = [name for module in ("vision_transformer", "deit") for name in timm.list_models(module=module)]
NAMES = [*VITS, *timm.list_models(module="fastvit")]
#: what the message of a refusal says -> how many are refused for it; docs/weights.md has the same numbers
REFUSED = {
    "attention pooling": 18,
    "gated feed-forward layers (SwiGLU)": 15,
    "norms inside of attention or feed-forward layers": 4,
    "parallel attention and feed-forward layers": 6,
    "differential attention": 3,
    "norms without bias": 1,
    "norms after the branches": 1,
}


def small(name: str) -> torch.nn.Module:
    options = {"mlp_ratio": 4} if "giant_" in name else {}
    patch = timm.get_pretrained_cfg(name).input_size[-1]
    side = next(p for p in (14, 16, 32, 8) if f"patch{p}_" in f"{name}_") * 4 if "patch" in name else patch
    return timm.create_model(name, embed_dim=64, num_heads=2, depth=2, num_classes=5, img_size=side, **options)


@torch.no_grad()
def outcome(name: str, folder) -> str:
    """Is it "equal", "WRONG", or refused, and why?"""
    theirs = randomized(small(name))
    save_file({key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}, folder / "model.safetensors")
    save_config_for_hf(theirs, str(folder / "config.json"))
    try:
        opened = open_network(folder)
    except WeightsError as error:
        return next(reason for reason in REFUSED if reason in str(error))
    side = opened.recipe.augmentation.image_resize
    images = torch.randn(2, 3, side, side)
    expected = theirs(images)
    return "equal" if torch.allclose(opened.model(images), expected, rtol=1e-4, atol=1e-4) else "WRONG"


@pytest.mark.slow
def test_equal_or_refused_for_a_reason(tmp_path):
    torch.manual_seed(0)
    found = Counter(outcome(name, tmp_path) for name in VITS)
    assert found == {"equal": len(VITS) - sum(REFUSED.values()), **REFUSED}


def test_the_numbers_of_the_documentation():
    page = Path("docs/weights.md").read_text()
    assert "".join(f"| {reason} | {number} |\n" for reason, number in REFUSED.items()) in page
    assert f"Of the {len(VITS)} ViTs of timm" in page
    assert f"{len(VITS) - sum(REFUSED.values())} give the same logits" in page


def test_names_say_what_tensors_do_not():
    for name in VITS:
        with torch.device("meta"):
            theirs = timm.create_model(name, depth=1)
        block = theirs.blocks[0]
        if not (hasattr(block, "attn") and hasattr(block, "mlp")) or "aimv2" in name:
            continue  # refused by its tensors
        said = facts_of(name)
        activation = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "gelu"}  # SwiGLU
        assert said["num_heads"] == block.attn.num_heads, name
        assert said["norm_eps"] == block.norm1.eps, name
        assert said["act_layer"] == activation[type(block.mlp.act).__name__], name


def test_other_networks_are_told_from_their_names():
    others = set(timm.list_models()) - set(NAMES)
    assert [name for name in sorted(others) if difference_of(name) is None] == []
    told = [name for name in NAMES if difference_of(name)]
    assert all("mci" in name or "rpn" in name for name in told)
