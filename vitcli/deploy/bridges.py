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
from vitcli.networks.calibration import divided
from vitcli.networks.heat_maps import heat_maps
from vitcli.networks.opened import Opened
from vitcli.recipe.load import Recipe
from vitcli.weights.preprocessing import KEYS

#: the logarithm of a probability of 0 would make one image outweigh all others
_SMALLEST = float(np.finfo(np.float32).tiny)
#: the largest float32 below 1
_LARGEST = 1 - 2.0**-24


class ModelClassifier(ImageClassifier):
    """The model of `opened`, fully folded. UsageError if PyTorch does not see `device`, "auto", "cpu", "cuda" or "mps".

    threads: of PyTorch, for the whole process; None: unchanged.
    """

    def __init__(self, opened: Opened, *, threads: int | None = None, device: str = "auto") -> None:
        recipe = opened.recipe
        super().__init__(opened.class_names, recipe.augmentation, recipe.model.in_channels, opened.thresholds)
        if device not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(f"PyTorch has no device {device!r}", help="give cpu, cuda or mps")
        if threads:
            torch.set_num_threads(threads)
        self._device = choose_device(device, 0)
        self._temperature = opened.temperature
        self._model = reparameterize(opened.model, fold="full").to(self._device)
        self._normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std, recipe.model.in_channels)

    @torch.inference_mode()
    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        logits = divided(self._model(self._normalize(images)), self._temperature)
        return (logits.softmax(-1) if self.thresholds is None else logits.sigmoid()).cpu().numpy()

    def heat_maps(self, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        return heat_maps(self._model, self._normalize(images), torch.from_numpy(classes)).cpu().numpy()


class ExportedNetwork(nn.Module):
    """(B, C, H, W) images, normalized as `seen_by` says -> (B, num_classes), logits with the artifact's probabilities.

    For one class per image these are the logarithms of the probabilities, the softmax of which they are again. The
    artifact gets the pixels, since normalization is part of it.
    """

    def __init__(self, artifact: Artifact, *, device: str | None = None) -> None:
        super().__init__()
        self.classify, self.multi_label = Classifier(artifact, device=device), artifact.thresholds is not None
        seen = artifact.preprocessing
        self.mean, self.std = (255 * torch.tensor(values).view(1, -1, 1, 1) for values in (seen.mean, seen.std))

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images.to("cpu", torch.float32) * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
        probabilities = torch.from_numpy(self.classify(pixels.permute(0, 2, 3, 1).contiguous().numpy()))  # (B, H, W, C)
        probabilities = probabilities.to(images.device)
        if self.multi_label:
            return probabilities.clamp(_SMALLEST, _LARGEST).logit()
        return probabilities.clamp(min=_SMALLEST).log()


def seen_by(artifact: Artifact, recipe: Recipe) -> Recipe:
    """`recipe` with the preprocessing of `artifact`, in float32, and the task that its classes are measured by."""
    seen = {name: getattr(artifact.preprocessing, name) for name in KEYS}
    seen |= {"image_resize": artifact.preprocessing.image_resize, "in_channels": artifact.in_channels}
    task = "classification" if artifact.thresholds is None else "multilabel"
    return recipe.changed(str(artifact.folder), **seen, task=task, amp="off", quantize="none")
