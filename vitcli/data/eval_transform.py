"""What is done to one image before an evaluation sees it: a fixed crop. Pillow only, so that predictions start fast.

Geometry is timm's and torchvision's: the same image gives the same pixels.
"""

import math
from collections.abc import Callable

from PIL import Image

from vitcli.recipe.schema import Augmentation

EvalTransform = Callable[[Image.Image], Image.Image]

Resampling = Image.Resampling
Filters = tuple[Resampling, ...]
#: key `interpolation` -> filters, one of which is drawn for each image
FILTERS: dict[str, Filters] = {
    "nearest": (Resampling.NEAREST,),
    "bilinear": (Resampling.BILINEAR,),
    "bicubic": (Resampling.BICUBIC,),
    "lanczos": (Resampling.LANCZOS,),
    "random": (Resampling.BILINEAR, Resampling.BICUBIC),
}
_LONGEST_ASPECT = 16


def build_eval_transform(aug: Augmentation, *, in_channels: int = 3) -> EvalTransform:
    """PIL RGB image -> the center crop of aug.image_resize squared after the shorter side became image_resize/crop_pct.

    The same image gives the same pixels as timm's `create_transform` (sides rounded down, crop rounded half to even),
    except that of an image longer than 16:1 only the middle is resized, since all of it might not fit in memory.
    """
    filters, mode, side = FILTERS[aug.interpolation], image_mode(in_channels), aug.image_resize
    shorter = math.floor(side / aug.crop_pct)

    def transform(image: Image.Image) -> Image.Image:
        image = image.convert(mode) if image.mode != mode else image
        return center_crop(resize_shorter(limit_aspect(image), shorter, filters[-1]), side)

    return transform


def resize_shorter(image: Image.Image, shorter: int, resample: Resampling) -> Image.Image:
    """`image` with its shorter side `shorter` pixels long and the longer one in proportion, rounded down."""
    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    return image if size == image.size else image.resize(size, resample)


def center_crop(image: Image.Image, side: int) -> Image.Image:
    """The middle side x side pixels; where an odd number is left over, rounded half to even as in torchvision."""
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def limit_aspect(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than 16:1, cut off equally at both ends."""
    width, height = image.size
    surplus = max(width, height) - _LONGEST_ASPECT * min(width, height)
    if surplus < 2:
        return image
    cut = surplus // 2
    return image.crop((cut, 0, width - cut, height) if width > height else (0, cut, width, height - cut))


def image_mode(in_channels: int) -> str:
    return "RGB" if in_channels == 3 else "L"
