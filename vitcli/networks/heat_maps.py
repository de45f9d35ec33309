"""Heat maps: where in an image a network finds a class.

The method is LayerCAM (Jiang et al. 2021, IEEE TIP 30, eq. 4): activations of a late layer that still has positions,
each weighted by the positive part of the gradient of the class's logit, and summed over the channels. The layer is

    FastViT            the map after the final convolution, (B, C, H/32, W/32)
    ViT, F-ViT         the tokens before the last block, without those of class and registers; in the last block only
                       the class token is computed
    any other model    the last map (B, C, h, w) of its forward pass
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.models.fastvit import FastViT
from vitcli.models.fvit import FViT
from vitcli.models.vision_transformer import VisionTransformer

#: their outputs may be the weights of an attention, (B, heads, N, N), which are no map
_NO_MAPS = (nn.Dropout, nn.Dropout2d, nn.Softmax, nn.Identity)


@dataclass(frozen=True)
class Layer:
    """Where the activations of a network are read: the output of `module`, or its input.

    num_prefix_tokens, grid: of tokens (B, P+N, D): P, and the rows and columns of the N patches; None: it is a map.
    """

    module: nn.Module
    of_input: bool = False
    num_prefix_tokens: int = 0
    grid: tuple[int, int] | None = None

    def as_map(self, x: Tensor) -> Tensor:
        """(B, C, h, w)"""
        if self.grid is None:
            return x
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)


def heat_maps(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """How much each pixel speaks for a class: (B, H, W) float32, from 0 to 1 in each image; zeros if nothing does.

    The mode of the model, its gradients and their flags are afterwards what they were before.

    Args:
        model: images (B, C, H, W) -> logits (B, num_classes).
        images: normalized, on the model's device.
        classes: (B,) the number of a class for each image; None: the most probable class of each.

    Raises:
        UsageError: the model has no layer that gives a map, or no classes.
    """
    layers = heat_layers(model, images)
    pairs = activations_and_gradients(model, images, classes, layers)
    maps = [enlarged(layer_cam(*pair), images.shape[-2:]) for pair in pairs]
    return torch.stack(maps).amax(0)


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """(B, C, h, w) each -> (B, h, w), 0 and above."""
    return (gradient.relu() * activation).sum(1).relu()


def heat_layers(model: nn.Module, images: Tensor) -> list[Layer]:
    """The layers whose maps are combined, by their maximum; UsageError if there is none."""
    if isinstance(model, FastViT):
        return [Layer(model.final_conv)]
    if isinstance(model, VisionTransformer) and model.transformer is not None:
        message = f"no heat map can be made: the blocks of this ViT are replaced by {_name(model.transformer)}"
        raise UsageError(message, help="use a network with attention blocks, or FastViT")
    if isinstance(model, VisionTransformer | FViT):
        last = model.blocks[len(model.blocks) - 1]
        return [Layer(last, of_input=True, num_prefix_tokens=model.num_prefix_tokens, grid=model.grid_size)]
    return [Layer(_last_map(model, images))]


def activations_and_gradients(
    model: nn.Module, images: Tensor, classes: Tensor | None, layers: list[Layer]
) -> list[tuple[Tensor, Tensor]]:
    """Of each layer its activation, and the gradient of the class's logit for it.

    Both are maps (B, C, h, w) float32. Only what follows the first layer is differentiated.
    """
    found: dict[int, Tensor] = {}

    def read(number: int, x: Tensor) -> Tensor:
        found[number] = x if x.requires_grad else x.detach().requires_grad_()
        return found[number]

    with torch.inference_mode(False), torch.enable_grad(), _frozen(model), ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.enter_context(_hook(layer, lambda x, number=number: read(number, x)))
        logits = model(images.clone() if images.is_inference() else images)
        score = _of_classes(model, logits, classes).sum()
        tensors = [found[number] for number in range(len(layers))]
        gradients = torch.autograd.grad(score, tensors)
    pairs = zip(layers, tensors, gradients, strict=True)
    return [(layer.as_map(x.detach()).float(), layer.as_map(gradient).float()) for layer, x, gradient in pairs]


def _of_classes(model: nn.Module, logits: Tensor, classes: Tensor | None) -> Tensor:
    """(B,) the logits of the classes."""
    if getattr(model, "num_classes", None) == 0 or logits.ndim != 2:
        raise UsageError(f"no heat map can be made: {_name(model)} has no classifier", help="give a trained classifier")
    chosen = logits.argmax(1) if classes is None else classes.to(logits.device)
    return logits.gather(1, chosen[:, None])[:, 0]


def enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    """(B, h, w) -> (B, H, W), each from 0 to 1; a map without differences becomes zeros."""
    maps = F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def _last_map(model: nn.Module, images: Tensor) -> nn.Module:
    """The last module of a forward pass whose output is a map; UsageError if tokens follow it, or there is none."""
    last: list[nn.Module] = []
    size = images.shape[-2:]

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or isinstance(module, _NO_MAPS):
            return
        if output.ndim == 3 and output.shape[1] > 1:
            last.clear()
        if output.ndim == 4 and _fits(output.shape[-2:], size):
            last[:] = [module]

    with _frozen(model), torch.no_grad(), ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_hook(look).remove)
        model(images[:1])
    if not last:
        message = f"no heat map can be made: {_name(model)} ends with tokens or features, not with a map"
        raise UsageError(message, help="use FastViT, a ViT, or a model with a map (B, C, h, w) before its classifier")
    return last[0]


def _fits(shape: torch.Size, image: torch.Size) -> bool:
    """Whether a map can be that of an image: not larger, of about the same aspect ratio, more than one position."""
    (height, width), (full_height, full_width) = shape, image
    if height * width < 2 or height > full_height or width > full_width:
        return False
    return abs(height / full_height - width / full_width) <= 1 / 4


def _name(module: nn.Module) -> str:
    return type(module).__name__


@contextmanager
def _hook(layer: Layer, read: Any) -> Iterator[None]:
    """While the block runs, what `layer` reads is replaced by what `read` makes of it."""
    if layer.of_input:
        handle = layer.module.register_forward_pre_hook(lambda _, args: (read(args[0]), *args[1:]))
    else:
        handle = layer.module.register_forward_hook(lambda _, __, output: read(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, with parameters that ask for no gradient; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad = flag
