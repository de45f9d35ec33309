"""An image with its heat map over it, small enough for a page."""

import numpy as np
from PIL import Image

from vitcli.data.contact_sheet import displayed
from vitcli.data.heat_colors import colors

#: the share of color where the heat is 0, and where it is 1
_LEAST, _MOST = 0.3, 0.75


def over_picture(pixels: np.ndarray, heat: np.ndarray | None) -> tuple[Image.Image, Image.Image | None]:
    """The image as a picture, and the same in gray under the colors of its heat map.

    Args:
        pixels: (C, H, W) uint8.
        heat: (H, W) in 0..1; None: there is none.
    """
    image = displayed(pixels.astype(np.float32) / 255).convert("RGB")
    if heat is None:
        return image, None
    gray = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    share = (_LEAST + (_MOST - _LEAST) * np.clip(heat, 0, 1))[..., None]
    return image, Image.fromarray(((1 - share) * gray + share * colors(heat)).round().astype(np.uint8))
