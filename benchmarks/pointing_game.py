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
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.data.decode import open_image
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.mixing import Normalizer
from vitcli.evaluators.statistics import wilson
from vitcli.layers.attention import Attention
from vitcli.models.fastvit import FastViT
from vitcli.networks.heat_maps import Layer, activations_and_gradients, enlarged, heat_layers, layer_cam
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


def methods_for(model: nn.Module) -> dict[str, Method]:
    if isinstance(model, FastViT):
        last, stage_2 = Layer(model.final_conv), Layer(model.stages[2])
        return {
            "LayerCAM, last map": by(layer_cam, [last]),
            "LayerCAM, stage 2": by(layer_cam, [stage_2]),
            "LayerCAM, maximum of both": by(layer_cam, [stage_2, last]),
            "Grad-CAM, last map": by(grad_cam, [last]),
            "gradient x activation, last map": by(gradient_times_activation, [last]),
        }
    before_last = heat_layers(model, torch.zeros(0))
    return {
        "LayerCAM, tokens before the last block": by(layer_cam, before_last),
        "Grad-CAM, tokens before the last block": by(grad_cam, before_last),
        "gradient x activation, before the last": by(gradient_times_activation, before_last),
        "attention rollout": rollout,
        "rollout of attention x gradient": gradient_rollout,
    }


def by(weigh: Callable[[Tensor, Tensor], Tensor], layers: list[Layer]) -> Method:
    def method(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        pairs = activations_and_gradients(model, images, classes, layers)
        return torch.stack([enlarged(weigh(*pair), images.shape[-2:]) for pair in pairs]).amax(0)

    return method


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Selvaraju et al. 2017, eq. 1 and 2: each channel is weighted by the mean of its gradient."""
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()


def gradient_times_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin 2020)."""
    return (gradient * activation).sum(1).relu()


def rollout(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Abnar and Zuidema 2020: half of each attention and half of the identity, multiplied. It ignores the class."""
    layers = [(weights.mean(1) + torch.eye(weights.shape[-1])) / 2 for weights, _ in attentions(model, images, classes)]
    return from_relevance(model, images, layers)


def gradient_rollout(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Chefer et al. 2021 (arXiv 2103.15679), eq. 5 and 6: attention times its gradient, positive parts only."""
    layers = [(w * g).relu().mean(1) + torch.eye(w.shape[-1]) for w, g in attentions(model, images, classes)]
    return from_relevance(model, images, layers)


def from_relevance(model: nn.Module, images: Tensor, layers: list[Tensor]) -> Tensor:
    """The product of the layers (B, N, N), its row of the class token, or the mean of all rows without one."""
    relevance = layers[0]
    for layer in layers[1:]:
        relevance = layer @ relevance
    prefix = model.num_prefix_tokens
    row = relevance[:, 0] if prefix else relevance.mean(1)
    grid: tuple[int, int] = model.grid_size  # pyright: ignore[reportAssignmentType]
    return enlarged(row[:, prefix:].unflatten(1, grid), images.shape[-2:])


def attentions(model: nn.Module, images: Tensor, classes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The attention weights (B, heads, N, N) of each block, and the gradient of the class's logit for them.

    With o = A v the gradient for A is that for o, times v transposed.
    """
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    found: dict[Attention, list[Tensor]] = {layer: [] for layer in layers}
    with torch.enable_grad(), ExitStack() as hooks:
        for layer in layers:
            keep = found[layer].append
            hooks.callback(layer.qkv.register_forward_hook(lambda _m, _a, output, keep=keep: keep(output)).remove)
            hooks.callback(layer.proj.register_forward_pre_hook(lambda _m, args, keep=keep: keep(args[0])).remove)
        score = model(images).gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, [found[layer][1] for layer in layers])
    pairs = []
    for layer, gradient in zip(layers, gradients, strict=True):
        shape = (3, layer.num_heads, layer.head_dim)
        q, k, v = found[layer][0].detach().unflatten(-1, shape).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) * layer.fixed_scale).softmax(-1)
        of_output = gradient.unflatten(-1, shape[1:]).transpose(1, 2)  # (B, heads, N, head_dim)
        pairs.append((weights, of_output @ v.transpose(-1, -2)))
    return pairs


if __name__ == "__main__":
    main()
