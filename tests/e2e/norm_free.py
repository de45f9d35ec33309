"""A plugin with a small model without BatchNorm, with which one and two processes can be compared exactly."""

from typing import NamedTuple

from torch import nn


class Variant(NamedTuple):
    img_size: int
    crop_pct: float


VARIANTS = {"norm_free": Variant(32, 1.0)}


def create(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: int,
    drop_rate: float,
    drop_path_rate: float,
    layer_scale_init: float | None,
    grad_checkpointing: bool,
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_chans, 8, 4, stride=4), nn.GroupNorm(1, 8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 64, num_classes)
    )  # fmt: skip
