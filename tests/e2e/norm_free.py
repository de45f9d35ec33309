"""Trains a small network without BatchNorm through the real `train`, so that 1 and 2 processes can be compared exactly.

[torchrun …] norm_free.py RUN_DIR --key value …
"""

import sys

from torch import nn

import vitcli.networks.build as networks
from vitcli.commands.train import train
from vitcli.recipe.load import load_recipe


def build_network(recipe, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.GroupNorm(1, 8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 64, num_classes)
    )  # fmt: skip


networks.build_network = build_network
words = sys.argv[2:]
keys = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
train(load_recipe("quickstart", {"run_dir": sys.argv[1], **keys}))
