"""Classifies images by a run or a checkpoint, as `Classifier` does by an artifact."""

import numpy as np
import torch

from vitcli.data.mixing import Normalizer
from vitcli.deploy.classify import ImageClassifier
from vitcli.distributed import choose_device
from vitcli.errors import UsageError
from vitcli.layers.reparam import reparameterize
from vitcli.networks.opened import Opened


class ModelClassifier(ImageClassifier):
    """The model of `opened`, fully folded.

    Args:
        threads: of PyTorch, for the whole process; None: unchanged.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        UsageError: PyTorch does not see this device.
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
