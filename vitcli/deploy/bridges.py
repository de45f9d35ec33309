"""Between PyTorch and artifacts: a model that classifies images, an artifact that evaluators measure."""

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.data.mixing import Normalizer
from vitcli.deploy.artifact import Artifact
from vitcli.deploy.classify import Classifier, ImageClassifier
from vitcli.distributed import choose_device
from vitcli.errors import UsageError
from vitcli.layers.reparam import reparameterize
from vitcli.networks.opened import Opened
from vitcli.recipe.load import Recipe

#: recipe keys that say which pixels of an image the network gets
GEOMETRY = ("image_resize", "crop_pct", "crop_mode", "interpolation", "pixel_range")
#: the logarithm of a probability of 0 would make one image outweigh all others
_SMALLEST = float(np.finfo(np.float32).tiny)


class ModelClassifier(ImageClassifier):
    """The model of `opened`, fully folded. UsageError if PyTorch does not see `device`, "auto", "cpu", "cuda" or "mps".

    threads: of PyTorch, for the whole process; None: unchanged.
    """

    def __init__(self, opened: Opened, *, threads: int | None = None, device: str = "auto") -> None:
        recipe = opened.recipe
        super().__init__(opened.class_names, recipe.augmentation, recipe.model.in_channels)
        if device not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(f"PyTorch has no device {device!r}", help="give cpu, cuda or mps")
        if threads:
            torch.set_num_threads(threads)
        self._device = choose_device(device, 0)
        self._model = reparameterize(opened.model, fold="full").to(self._device)
        self._normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std, recipe.model.in_channels)

    @torch.inference_mode()
    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        return self._model(self._normalize(images)).float().softmax(-1).cpu().numpy()


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
    geometry = {name: getattr(seen, name) for name in GEOMETRY}
    geometry["in_channels"] = artifact.in_channels
    return recipe.changed(str(artifact.folder), **geometry, mean=[0.0], std=[1 / 255], amp="off", quantize="none")
