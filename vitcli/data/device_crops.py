"""Crops of many images at once, on any device: gathered from padded ones, or resized from boxes by two matrix products.

A resize is Pillow's (Pillow's weights, one pass per dimension, 8 bits after each), in float32 instead of integers: a
value may differ from that of `Pixels.resize` by one level per pass.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

Resampling = Image.Resampling


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys 1981, with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


#: filter -> its function of the distance, and the distance from which on that is zero
_FILTERS: dict[Resampling, tuple[Callable[[Tensor], Tensor], float]] = {
    Resampling.BILINEAR: (_triangle, 1.0),
    Resampling.BICUBIC: (_cubic, 2.0),
}
SUPPORTED = frozenset(_FILTERS)


def windows(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W), (B, h), (B, w) -> (B, C, h, w): those rows and columns of each image."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resized_boxes(images: Tensor, boxes: Tensor, cubic: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) uint8 -> (B, C, h, w) uint8: the box of each image, resized to (h, w) = size.

    Args:
        boxes: (B, 4) int64: left, top, right, bottom in px.
        cubic: (B,) bool: whether an image is resized by the bicubic filter, else by the bilinear one.
    """
    left, top, right, bottom = boxes.unbind(1)
    across = _weights(left, right - left, cubic, images.shape[3], size[1]).transpose(1, 2)[:, None]  # (B, 1, W, w)
    down = _weights(top, bottom - top, cubic, images.shape[2], size[0])[:, None]  # (B, 1, h, H)
    images = images.float()
    resized = _eight_bits(down @ _eight_bits(images @ across))
    # What follows is Pillow's order of passes since 13.0. Computed for all images, since choosing would wait for a GPU.
    saved_rows, saved_columns = bottom - top - size[0], right - left - size[1]
    down_first = (saved_rows > 0) & (saved_rows > 2 * saved_columns)
    if size[0] < images.shape[2]:
        resized = torch.where(
            down_first[:, None, None, None], _eight_bits(_eight_bits(down @ images) @ across), resized
        )
    return resized.to(torch.uint8)


def _eight_bits(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, cubic: Tensor, side: int, outputs: int) -> Tensor:
    """(B, outputs, side) float32: what each pixel of a row counts for each pixel of the resized stretch."""
    scale = (length / outputs)[:, None, None]
    reach = scale.clamp(min=1)  # the filter is widened where the stretch shrinks
    center = (torch.arange(outputs, device=start.device) + 0.5)[None, :, None] * scale  # from the start of the stretch
    pixel = torch.arange(side, device=start.device)[None, None] - start[:, None, None]  # (B, 1, side)
    distance = (pixel + 0.5 - center) / reach
    weights = torch.where(cubic[:, None, None], _cubic(distance), _triangle(distance))
    weights = weights * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
