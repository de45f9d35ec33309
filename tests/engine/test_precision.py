"""What is said of the arithmetic of a run."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitcli.engine import precision
from vitcli.engine.precision import attention_in_words
from vitcli.layers.attention import Attention, Attention2d, attention_kernel
from vitcli.recipe.load import load_recipe


def test_the_kernel_of_attention_is_named_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """By the width of the heads, in the data type of the run."""
    asked = []
    monkeypatch.setattr(precision, "attention_kernel", lambda *place, **width: asked.append((place, width)) or "flash")
    gpu, recipe = torch.device("cuda"), load_recipe(None, amp="bf16")
    network = nn.Sequential(nn.Linear(8, 8), Attention(12, 3))
    assert attention_in_words(network, recipe, gpu) == "flash attention, heads of 4"
    assert asked == [((gpu, torch.bfloat16), {"head_dim": 4})]
    assert attention_in_words(nn.Sequential(Attention2d(64)), recipe, gpu) == "flash attention, heads of 32"
    assert attention_in_words(nn.Linear(8, 8), recipe, gpu) is None
    assert attention_in_words(network, recipe, torch.device("cpu")) is None


def test_the_kernel_is_that_of_pytorch():
    cpu = torch.device("cpu")
    assert attention_kernel(cpu, torch.float32, head_dim=64) == "flash"
    with sdpa_kernel(SDPBackend.MATH):
        assert attention_kernel(cpu, torch.float32, head_dim=64) == "math"
