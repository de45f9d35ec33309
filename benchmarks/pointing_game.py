"""Which heat map points at the right half of two photographs side by side: a measurement of the methods.

    python benchmarks/pointing_game.py RUN IMAGES [--pairs 500]

IMAGES is a folder of class folders that RUN was not trained on. Of each pair of photographs of different classes, both
of which the network classifies correctly, the middle halves are put side by side at the size of the network's input.
The map for the class of each of the two is right if more than half of its mass lies on that photograph. A map that does
not look at the class is right in half of the cases.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.data.decode import open_image
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.mixing import Normalizer
from vitcli.evaluators.statistics import wilson
from vitcli.models.fastvit import FastViT
from vitcli.networks.heat_maps import activation_and_gradient, attention_and_gradient, enlarged, heat_maps, layer_cam
from vitcli.networks.opened import Opened, open_model

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]  #: images (B, C, H, W), classes (B,) -> maps (B, H, W)
_BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    opened = open_model(options.run)
    composites, classes = pairs_of(opened, options.images, options.pairs, random.Random(options.seed))
    print(f"{len(composites)} pairs, {2 * len(composites)} maps; 95 % interval of Wilson; chance is 50 %")
    for name, method in methods_for(opened.model).items():
        on_own_half = shares(opened.model, composites, classes, method)
        right = int((on_own_half > 0.5).sum())
        low, high = wilson(right, len(on_own_half))
        share, mass = right / len(on_own_half), float(np.mean(on_own_half))
        print(f"{name:42} right {share:6.1%} ({low:.1%} to {high:.1%})   mean share of the mass {mass:.1%}", flush=True)


def pairs_of(opened: Opened, folder: Path, num_pairs: int, draw: random.Random) -> tuple[Tensor, Tensor]:
    """Composites (N, C, H, W), and the classes (N, 2) of their left and right halves."""
    recipe = opened.recipe
    transform = build_eval_transform(recipe.augmentation, in_channels=recipe.model.in_channels)
    normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std, recipe.model.in_channels)
    paths = [path for path in folder.glob("*/*") if path.parent.name in opened.class_names]
    draw.shuffle(paths)
    right: list[tuple[Tensor, int]] = []
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        pixels = [np.asarray(transform(open_image(path))) for path in batch]
        images = normalize(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
        labels = torch.tensor([opened.class_names.index(path.parent.name) for path in batch])
        with torch.no_grad():
            hits = opened.model(images).argmax(1) == labels
        right += [(image, int(label)) for image, label, hit in zip(images, labels, hits, strict=True) if hit]
        if len(right) >= 2 * num_pairs:
            break
    pairs = [(a, b) for a, b in zip(right[::2], right[1::2], strict=False) if a[1] != b[1]]
    print(f"{len(right)} photographs, of which the network knows the class")
    return torch.stack([side_by_side(a[0], b[0]) for a, b in pairs]), torch.tensor([(a[1], b[1]) for a, b in pairs])


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """The middle halves of two images (C, H, W), as one."""
    quarter = left.shape[-1] // 4
    return torch.cat([image[..., quarter : 3 * quarter] for image in (left, right)], dim=-1)


def shares(model: nn.Module, composites: Tensor, classes: Tensor, method: Method) -> np.ndarray:
    """(2 N,) the share of each map's mass that lies on the half of its own class; one half if there is no mass."""
    found = []
    for start in range(0, len(composites), _BATCH):
        images = composites[start : start + _BATCH]
        for half in (0, 1):
            maps = method(model, images, classes[start : start + _BATCH, half]).double()
            masses = torch.stack([part.sum((1, 2)) for part in maps.chunk(2, dim=2)], dim=1)
            total = masses.sum(1)
            found.append(torch.where(total > 0, masses[:, half] / total.clamp(min=1e-12), 0.5))
    return torch.cat(found).numpy()


def methods_for(model: Any) -> dict[str, Method]:
    if isinstance(model, FastViT):
        stage_2, last = model.stages[2], model.final_conv
        return {
            "LayerCAM, last map": by(layer_cam, last),
            "LayerCAM, stage 2": by(layer_cam, stage_2),
            "LayerCAM, maximum of both": by(layer_cam, stage_2, last),
            "Grad-CAM, last map": by(grad_cam, last),
            "gradient x activation, last map": by(gradient_times_activation, last),
        }
    before_last, middle = model.blocks[-2], model.blocks[(len(model.blocks) - 1) // 2]
    return {
        "LayerCAM, tokens before the last block": by(layer_cam, before_last),
        "Grad-CAM, tokens before the last block": by(grad_cam, before_last),
        "gradient x activation, the same tokens": by(gradient_times_activation, before_last),
        "LayerCAM, tokens of the middle block": by(layer_cam, middle),
        "attention rollout": rollout,
        "attention x gradient, last block": last_attention,
        "attention x gradient, all blocks": heat_maps,
    }


def by(weigh: Callable[[Tensor, Tensor], Tensor], *layers: nn.Module) -> Method:
    """The maximum of the maps of several layers."""

    def method(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        pairs = [activation_and_gradient(model, images, classes, layer) for layer in layers]
        maps = [weigh(*(as_map(model, x) for x in pair)) for pair in pairs]
        return torch.stack([enlarged(one, images.shape[-2:]) for one in maps]).amax(0)

    return method


def as_map(model: Any, x: Tensor) -> Tensor:
    """Tokens (B, P+N, D) -> (B, D, h, w)."""
    return x if x.ndim == 4 else x[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, model.grid_size)


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Selvaraju et al. 2017, eq. 1 and 2: each channel is weighted by the mean of its gradient."""
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()


def gradient_times_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin 2020)."""
    return (gradient * activation).sum(1).relu()


def rollout(model: Any, images: Tensor, classes: Tensor) -> Tensor:
    """Abnar and Zuidema 2020: half of each attention and half of the identity, multiplied. It ignores the class."""
    layers = [weights.mean(1) for weights, _ in attention_and_gradient(model, images, classes)]
    relevance = torch.eye(layers[0].shape[-1])
    for layer in layers:
        relevance = (layer + torch.eye(layer.shape[-1])) / 2 @ relevance
    return of_class_token(model, images, relevance)


def last_attention(model: Any, images: Tensor, classes: Tensor) -> Tensor:
    """As `heat_maps`, of the last block alone."""
    *_, (weights, gradient) = attention_and_gradient(model, images, classes)
    return of_class_token(model, images, (weights * gradient).relu().mean(1))


def of_class_token(model: Any, images: Tensor, relevance: Tensor) -> Tensor:
    """(B, N, N) -> maps; of a model without class token the mean of all rows."""
    prefix = model.num_prefix_tokens
    row = relevance[:, 0] if prefix else relevance.mean(1)
    return enlarged(row[:, prefix:].unflatten(1, model.grid_size), images.shape[-2:])


if __name__ == "__main__":
    main()
