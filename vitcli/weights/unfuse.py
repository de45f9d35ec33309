"""Converts weights that were reparameterized for deployment to equal ones that can be trained."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitcli.errors import WeightsError
from vitcli.image_size import ImageSize, height_and_width
from vitcli.layers.reparam import reparameterize
from vitcli.layers.unfuse import new_norms, settle_norms, unfuse
from vitcli.models.fastvit_keys import from_apple
from vitcli.models.registry import create_model
from vitcli.weights.convert import convert_weights
from vitcli.weights.fit import Fit, fit_of, fold_of
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights

#: largest difference of the logits of the two forms, relative to the largest logit
MAX_DIFFERENCE = 1e-3
BATCH_SIZE = 16


@dataclass(frozen=True)
class Unfused:
    """A fused network and an equal one in training form, whose norms may not have statistics yet."""

    weights: Weights  #: as they were read
    name: str  #: in the registry
    fused: nn.Module
    model: nn.Module
    in_chans: int
    img_size: ImageSize  #: px

    @property
    def needs_images(self) -> bool:
        """Whether statistics must be measured."""
        return bool(new_norms(self.model))


def unfuse_weights(weights: Weights) -> Unfused:
    """The network of `weights` in both forms; WeightsError if they are not fused, or of a model that stays so."""
    fold = fold_of(weights.tensors)
    if fold is None:
        raise WeightsError(f"{weights.source} is not fused", help="it can be trained as it is, with --ckpt_path")
    fit = fit_of(weights)
    with torch.random.fork_rng(devices=[]):  # branches that add nothing have fixed random kernels
        torch.manual_seed(0)
        model: Any = create_model(fit.name, **_options(fit, weights)).eval()
    fused = reparameterize(model, fold=fold)
    load_weights(fused, weights)
    return Unfused(weights, fit.name, fused, unfuse(fused, into=model), model.in_chans, model.img_size)


def _options(fit: Fit, weights: Weights) -> dict[str, Any]:
    """Arguments of `create_model` for these tensors."""
    if fit.seen:
        # the tensors are the same for any number of heads
        return {name: 1 if name == "num_heads" and value is None else value for name, value in fit.options.items()}
    own = from_apple(weights.tensors)
    first_conv = own.get("stem.0.reparam_conv.weight")
    if first_conv is None:
        raise WeightsError(f"{weights.source} belongs to {fit.name}", help="only FastViT and ViT can be unfused")
    return {"num_classes": len(own.get("head.fc.weight", ())), "in_chans": first_conv.shape[1]}


def write_unfused(unfused: Unfused, images: Iterable[Tensor], out: Path) -> float:
    """Measure missing statistics on batches of normalized `images`, and write the safetensors file `out`.

    Returns:
        The largest difference between the logits of the two forms, relative to the largest logit.

    Raises:
        UsageError: `out` exists or cannot be written.
        WeightsError: the two forms are not equal.
    """
    if unfused.needs_images:
        settle_norms(unfused.model, images)
    with torch.no_grad():
        test = next(made_up_images(4, in_chans=unfused.in_chans, img_size=unfused.img_size))
        expected, found = unfused.fused(test), unfused.model(test)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    source = unfused.weights.source
    if not difference <= MAX_DIFFERENCE:
        raise WeightsError(
            f"{source}: the logits of the training form differ by {difference:.1e} of the largest",
            help=f"use weights that `reparameterize` fused in float32: they differ by less than {MAX_DIFFERENCE:g}",
        )
    convert_weights(Weights(unfused.model.state_dict(), unfused.weights.meta, source), "vitcli", out)
    return difference


def made_up_images(num_images: int, *, in_chans: int, img_size: ImageSize) -> Iterator[Tensor]:
    """Batches (B, in_chans, H, W) of nearly gray noise, mean 0 and variance 1, the same in every call.

    Amplitudes fall with 1 / frequency, as in natural images (Field 1987, J. Opt. Soc. Am. A 4, 2379).
    """
    random = torch.Generator().manual_seed(0)
    height, width = height_and_width(img_size)
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    amplitude = 1 / torch.hypot(rows[:, None], columns[None]).clamp(min=1 / max(height, width))  # (H, W // 2 + 1)
    for start in range(0, num_images, BATCH_SIZE):
        shape = (min(BATCH_SIZE, num_images - start), 1 + in_chans, height, width)
        white = torch.randn(shape, generator=random)
        noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=shape[2:])
        gray, colors = (noise / noise.std()).split([1, in_chans], dim=1)
        yield 0.95 * gray + 0.31 * colors  # 0.95^2 + 0.31^2 = 1
