"""Heat maps: where in an image a network finds a class.

FastViT, other models with maps    LayerCAM (Jiang et al. 2021, IEEE TIP 30, eq. 4): the activations (B, C, h, w) of
                                   the last layer that has positions, each weighted by the positive part of the
                                   gradient of the class's logit, summed over the channels
ViT, F-ViT                         attention times its gradient, positive parts only, followed through all blocks
                                   (Chefer et al. 2021, arXiv 2103.15679, eq. 5, 6 and 9). Tokens of late blocks are
                                   so mixed that maps of their gradients point nowhere: docs/benchmarks.md
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.attention import Attention
from vitcli.models.fastvit import FastViT
from vitcli.models.fvit import FViT
from vitcli.models.vision_transformer import VisionTransformer

#: their outputs may be the weights of an attention, (B, heads, N, N), which are no map
_NO_MAPS = (nn.Dropout, nn.Dropout2d, nn.Softmax, nn.Identity)
#: images at a time; through all blocks of a large ViT, each needs several hundred MB
_AT_ONCE = 4


def heat_maps(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """How much each pixel speaks for a class: (B, H, W) float32, from 0 to 1 in each image; zeros if nothing does.

    The mode of the model, its gradients and their flags are afterwards what they were before.

    Args:
        model: images (B, C, H, W) -> logits (B, num_classes).
        images: normalized, on the model's device.
        classes: (B,) the number of a class for each image; None: the most probable class of each.

    Raises:
        UsageError: the structure of the model gives no map, or it has no classes.
    """
    if isinstance(model, VisionTransformer) and model.transformer is not None:
        message = f"no heat map can be made: the blocks of this ViT are replaced by {_name(model.transformer)}"
        raise UsageError(message, help="use a network with attention blocks, or FastViT")
    if isinstance(model, VisionTransformer | FViT):
        numbers = [None] * len(images) if classes is None else classes.split(_AT_ONCE)
        parts = zip(images.split(_AT_ONCE), numbers, strict=False)
        return torch.cat([enlarged(attention_relevance(model, *part), images.shape[-2:]) for part in parts])
    layer = model.final_conv if isinstance(model, FastViT) else _last_map(model, images)
    return enlarged(layer_cam(*activation_and_gradient(model, images, classes, layer)), images.shape[-2:])


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """(B, C, h, w) each -> (B, h, w), 0 and above."""
    return (gradient.relu() * activation).sum(1).relu()


def activation_and_gradient(
    model: nn.Module, images: Tensor, classes: Tensor | None, layer: nn.Module
) -> tuple[Tensor, Tensor]:
    """The output of `layer`, and the gradient of the class's logit for it, both float32.

    Only what follows the layer is differentiated.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        found[:] = [output.detach().requires_grad_()]
        return found[0]

    with _differentiable(model), _hooks([layer.register_forward_hook(keep)]):
        score = _score(model, images, classes)
        (gradient,) = torch.autograd.grad(score, found)
    return found[0].detach().float(), gradient.float()


def attention_relevance(model: VisionTransformer | FViT, images: Tensor, classes: Tensor | None) -> Tensor:
    """(B, h, w) how much the pooled tokens owe to each patch."""
    layers = attention_and_gradient(model, images, classes)
    relevance: Any = None
    for weights, gradient in layers:
        passed = (weights * gradient).relu().mean(1)  # (B, N, N), the mean over the heads
        identity = torch.eye(passed.shape[-1], device=passed.device)
        relevance = identity + passed if relevance is None else relevance + passed @ relevance
    prefix = model.num_prefix_tokens
    is_token = isinstance(model, VisionTransformer) and model.global_pool == "token"
    pooled = relevance[:, : model.num_pooled] if is_token else relevance[:, prefix:]
    return pooled.mean(1)[:, prefix:].unflatten(1, model.grid_size)


def attention_and_gradient(
    model: VisionTransformer | FViT, images: Tensor, classes: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each block the attention weights A (B, heads, N, N), and the gradient of the class's logit for them.

    The blocks compute O = A V without holding A; its gradient is that for O, times V transposed.
    """
    layers = [module for module in model.blocks.modules() if isinstance(module, Attention)]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    first = model.blocks[0].register_forward_pre_hook(lambda _, args: (args[0].detach().requires_grad_(), *args[1:]))
    handles = [layer.qkv.register_forward_hook(lambda _, __, qkv: inputs.append(qkv.detach())) for layer in layers]
    handles += [layer.proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0])) for layer in layers]
    with _differentiable(model), _hooks([first, *handles]):
        score = _score(model, images, classes)
        gradients = torch.autograd.grad(score, outputs)
    for layer, qkv, gradient in zip(layers, inputs, gradients, strict=True):
        with torch.no_grad():
            weights, values = layer.weights_and_values(qkv.float())
            of_output = gradient.float().unflatten(-1, (layer.num_heads, layer.head_dim)).transpose(1, 2)
            of_weights = of_output @ values.transpose(-1, -2)
        yield weights, of_weights


def _score(model: nn.Module, images: Tensor, classes: Tensor | None) -> Tensor:
    """The sum of the logits of the classes; images do not influence each other."""
    logits = model(images.clone() if images.is_inference() else images)
    if getattr(model, "num_classes", None) == 0 or logits.ndim != 2:
        raise UsageError(f"no heat map can be made: {_name(model)} has no classifier", help="give a trained classifier")
    chosen = logits.argmax(1) if classes is None else classes.to(logits.device)
    return logits.gather(1, chosen[:, None]).sum()


def enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    """(B, h, w) -> (B, H, W), each from 0 to 1; a map without differences becomes zeros."""
    maps = maps - maps.amin((1, 2), keepdim=True)  # interpolation rounds, but not zeros
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

    with _differentiable(model), torch.no_grad(), _hooks([m.register_forward_hook(look) for m in model.modules()]):
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
def _hooks(handles: list[Any]) -> Iterator[None]:
    """They are removed at the end."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Gradients are recorded, but not for the parameters of the model, which is in eval mode; then all is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad = flag
