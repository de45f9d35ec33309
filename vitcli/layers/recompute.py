"""Gradient checkpointing: keep a block's input only, and run the block again in the backward pass."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitcli.layers.norm import frozen_statistics


def recompute(block: nn.Module, x: Tensor, *args: Any) -> Tensor:
    """block(x, *args), with less memory and one more forward pass.

    The running statistics of norms move once, not twice. Under torch.compile this is a plain call, for the compiler
    decides by itself what to keep.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return block(x, *args)
    contexts = lambda: (nullcontext(), frozen_statistics(block))  # noqa: E731
    return checkpoint(block, x, *args, use_reentrant=False, context_fn=contexts)
