"""Gradient checkpointing: keep only a block's input, and run the block again in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, x: Tensor, *args: Any) -> Tensor:
    """block(x, *args), with less memory and one more forward pass.

    The running statistics of norms are updated once, not twice: in eager mode by `frozen_statistics`, under
    torch.compile by the compiler, which recomputes only what the gradient needs.
    """
    if not torch.is_grad_enabled():
        return block(x, *args)
    if torch.compiler.is_compiling():
        return checkpoint(block, x, *args, use_reentrant=False)
    return checkpoint(
        block, x, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), frozen_statistics(block))
    )


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Norms use the statistics of the batch but do not update the running ones, as a second forward pass needs."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        count = norm.num_batches_tracked
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
