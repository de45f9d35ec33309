"""The network that is exported: folded, rewritten for runtimes, with preprocessing and softmax or sigmoid inside."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vitcli.deploy.plan import ExportPlan
from vitcli.image_size import ImageSize, height_and_width
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit import FastViT
from vitcli.models.fastvit_runtime import split_grouped

#: precision of the artifact -> data type of the exported network; int8 starts from float32
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Normalization = tuple[Sequence[float], Sequence[float]]
#: what makes probabilities of logits: of one class per image, or of each class on its own
Activation = Literal["softmax", "sigmoid"]


class Deployed(nn.Module):
    """What an artifact computes; inputs and outputs are never in half precision.

    Args:
        model: (B, C, H, W) normalized -> (B, num_classes).
        normalization: mean and std in units of the full range, one per channel or one for all. If given, the input is
            pixels, uint8 (B, H, W, C), the output probabilities; otherwise float32 (B, C, H, W) and logits.
        activation: of the probabilities.
        dtype: data type of the model.
        temperature: the logits are divided by it, see `networks/calibration.py`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        normalization: Normalization | None = None,
        activation: Activation = "softmax",
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.takes_pixels = normalization is not None
        self.activation = activation if self.takes_pixels else None  #: None: the output is logits
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in normalization or ((0.0,), (1.0,)))
        scale, shift = 1 / (255 * std), -mean / std
        self.register_buffer("scale", scale.to(torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.to(torch.float32).view(1, -1, 1, 1), persistent=False)
        self.dtype, self.temperature = dtype, temperature

    def forward(self, images: Tensor) -> Tensor:
        if self.takes_pixels:
            images = images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        logits = self.model(images.to(self.dtype)).to(torch.float32)
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.activation is None:
            return logits
        return logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()


def for_runtime(model: nn.Module) -> nn.Module:
    """A new model in eval mode that computes the same with fewer and faster layers, under other names."""
    folded = reparameterize(model, fold="full")
    if isinstance(folded, FastViT):
        split_grouped(folded)
    return folded.requires_grad_(False)


def example_input(plan: ExportPlan, img_size: ImageSize, in_channels: int) -> Tensor:
    """An input of the right shape and type; two images if any batch size is allowed: tracing treats 1 as fixed."""
    shape = (plan.batch or 2, *height_and_width(img_size), in_channels)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = pixels.to(plan.device)
    return pixels if plan.takes_pixels else pixels.permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1).contiguous()
