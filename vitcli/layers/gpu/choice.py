"""Which layers of a network use the Triton kernels, and how its maps lie in memory: what is fastest here, measured.

Each kind of layer is timed with PyTorch's kernels and with ours, on the maps that it gets in the network. Ours is taken
where it is faster and as exact. Then the whole network is timed with PyTorch's kernels, in both layouts, and with the
kernels chosen; so the choice is never slower than PyTorch.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: images with which a kernel's values are compared
CHECKED_IMAGES = 2
#: relative error that is as good as none, by data type
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

#: call -> the seconds it takes, without its first run, which may compile
Timer = Callable[[Callable[[], object]], float]
Context = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Choice:
    """layers: the kinds of layers that use Triton."""

    channels_last: bool
    layers: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Choice | None":
        """None if `value` is no choice."""
        match value:
            case {"channels_last": bool(channels_last), "layers": [*layers]} if all(isinstance(x, str) for x in layers):
                return cls(channels_last, tuple(layers))
        return None


@dataclass(frozen=True)
class Measured:
    """A choice and how it came about; times in seconds for one forward and backward pass of the network."""

    choice: Choice
    native: float  #: with PyTorch's kernels, the faster layout
    chosen: float
    refused: tuple[str, ...] = ()  #: kinds whose kernels failed or were less exact
    unmeasured: int = 0  #: kinds for which no time was left


def kinds_of_layers(root: nn.Module) -> dict[str, list[nn.Module]]:
    """The layers of `root` that have Triton kernels, outermost only: kind -> layers with the same sizes of weights."""
    found: dict[str, list[nn.Module]] = {}
    for layer in _outermost(root):
        base = next(kind for kind in type(layer).__mro__ if "native" not in vars(kind))
        convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
        sizes = [f"{len(conv.weight)}x{conv.kernel_size[0]}/{conv.stride[0]}" for conv in convs]
        norms = [f"{m.num_features}" for m in layer.modules() if isinstance(m, nn.BatchNorm2d)][: not sizes]
        found.setdefault(" ".join([base.__name__, *sizes, *norms]), []).append(layer)
    return found


def apply(choice: Choice, root: nn.Module) -> None:
    """Let the layers of `root` use the kernels chosen."""
    for kind, layers in kinds_of_layers(root).items():
        for layer in layers:
            _set_native(layer, kind not in choice.layers)


def measure(
    network: nn.Module,
    images: Tensor,
    context: Context,
    timer: Timer,
    *,
    may_change_layout: bool,
    has_time: Callable[[], bool],
) -> Measured:
    """Time the candidates on a copy of `network`, which is in training mode.

    Args:
        images: (B, C, H, W), on the device.
        context: makes the autocast context of forward passes.
        may_change_layout: whether the maps may lie row by row (NCHW); else channels_last only.
        has_time: asked before each kind of layer; those left when it says no keep PyTorch's kernels.
    """
    network = copy.deepcopy(network)
    by_pixel = images.contiguous(memory_format=torch.channels_last)
    kinds = kinds_of_layers(network)
    inputs = _inputs(network, by_pixel, context, {kind: layers[0] for kind, layers in kinds.items()})
    faster, refused, unmeasured = [], [], 0
    for kind, x in inputs.items():
        if not has_time():
            unmeasured += 1
        elif (verdict := _faster(kinds[kind][0], x, context, timer)) is None:
            refused.append(kind)
        elif verdict:
            faster.append(kind)
    times = {}
    candidates = [Choice(True, ()), Choice(True, tuple(faster))] + [Choice(False, ())] * may_change_layout
    for choice in dict.fromkeys(candidates):
        apply(choice, network)
        x = by_pixel if choice.channels_last else images.contiguous()
        times[choice] = timer(lambda x=x: _step(network, x, context))
    best = min(times, key=times.__getitem__)
    native = min(seconds for choice, seconds in times.items() if not choice.layers)
    return Measured(best, native, times[best], tuple(refused), unmeasured)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if hasattr(module, "native"):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _set_native(layer: nn.Module, native: bool) -> None:
    for module in layer.modules():
        if hasattr(module, "native"):
            setattr(module, "native", native)  # noqa: B010 - the type of modules has no such attribute


def _inputs(network: nn.Module, images: Tensor, context: Context, layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """What each of `layers` gets in a forward pass; those that are not called are left out."""
    found: dict[str, Tensor] = {}
    hooks = []
    for kind, layer in layers.items():

        def keep(_: nn.Module, args: tuple[Tensor, ...], kind: str = kind) -> None:
            found.setdefault(kind, args[0].detach())

        hooks.append(layer.register_forward_pre_hook(keep))
    apply(Choice(True, ()), network)
    with torch.no_grad(), context():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def _faster(layer: nn.Module, x: Tensor, context: Context, timer: Timer) -> bool | None:
    """Whether Triton's kernels are faster for a layer; None if they fail or are less exact than PyTorch's."""
    try:
        if not _is_exact(layer, x[:CHECKED_IMAGES], context):
            return None
        seconds = {}
        for native in (True, False):
            _set_native(layer, native)
            seconds[native] = timer(lambda: _step(layer, x, context))
    except Exception:  # no C compiler, not enough shared memory: whatever it is, PyTorch's kernels work
        return None
    return seconds[False] < seconds[True]


def _is_exact(layer: nn.Module, x: Tensor, context: Context) -> bool:
    """Whether outputs and gradients are within rounding of float64, or no further from it than PyTorch's."""
    results = []
    for native in (True, False):
        own = copy.deepcopy(layer)
        _set_native(own, native)
        results.append(_outputs(own, x, context))
    exact = copy.deepcopy(layer).double()
    _set_native(exact, True)
    exact = _outputs(exact, x.double(), lambda: torch.autocast(x.device.type, enabled=False))
    tolerance = ROUNDING.get(results[1][0].dtype, 1e-5)
    return all(
        (ours.double() - truth).norm() <= max(2 * (theirs.double() - truth).norm(), tolerance * truth.norm())
        for theirs, ours, truth in zip(*results, exact, strict=True)
    )


def _outputs(layer: nn.Module, x: Tensor, context: Context) -> list[Tensor]:
    """The output of a layer, and the gradients of x and of its parameters."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with context():
        out = layer(x)
    generator = torch.Generator(x.device).manual_seed(0)
    direction = torch.randn(out.shape, generator=generator, device=x.device).to(out.dtype)
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    return [out.detach(), *torch.autograd.grad(out, [x, *parameters], direction)]


def _step(module: nn.Module, x: Tensor, context: Context) -> None:
    """A forward and a backward pass."""
    x = x.detach().requires_grad_()
    with context():
        out = module(x)
    out.backward(torch.ones_like(out))
    module.zero_grad(set_to_none=True)
