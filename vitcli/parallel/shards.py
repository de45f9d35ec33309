"""A tensor of which each rank holds some rows: this rank's rows, the whole, and back. Others stay as they are."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of `tensor`, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, put together from the ranks, each of which must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The whole `tensor` as `like` is: sharded in the same way, without a word to other ranks, or as it is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:  # a wrong shape is for `load_state_dict` to refuse
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
