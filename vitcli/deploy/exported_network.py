"""An artifact as a network that evaluators can measure: pixels in, logarithms of probabilities out."""

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.deploy.artifact import Artifact
from vitcli.deploy.classify import Classifier
from vitcli.recipe.load import Recipe

#: the logarithm of a probability of 0 would make one image outweigh all others
_SMALLEST = float(np.finfo(np.float32).tiny)


class ExportedNetwork(nn.Module):
    """(B, C, H, W) whole numbers 0..255 of any type -> (B, num_classes), the logarithms of the probabilities.

    These count as logits: their softmax is the probabilities. Normalization is part of the artifact; see `fed_pixels`.
    """

    def __init__(self, artifact: Artifact, *, device: str | None = None) -> None:
        super().__init__()
        self.classify = Classifier(artifact, device=device)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        probabilities = torch.from_numpy(self.classify(pixels.numpy())).to(images.device)
        return probabilities.clamp(min=_SMALLEST).log()


def fed_pixels(recipe: Recipe, artifact: Artifact) -> Recipe:
    """`recipe` with the image geometry of `artifact`, and a normalization that leaves pixels as they are (0..255)."""
    seen = artifact.preprocessing
    return recipe.changed(
        str(artifact.folder),
        image_resize=seen.image_resize,
        crop_pct=seen.crop_pct,
        interpolation=seen.interpolation,
        in_channels=artifact.in_channels,
        mean=[0.0],
        std=[1 / 255],
        amp="off",
        quantize="none",
    )
