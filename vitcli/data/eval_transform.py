"""The transform of one image for evaluation: a fixed crop. It needs only Pillow, so that predictions start fast.

The geometry is that of timm and torchvision: the same image gives the same pixels.
"""

import math
from dataclasses import dataclass

from PIL import Image

from vitcli.recipe.schema import Augmentation

Resampling = Image.Resampling
Filters = tuple[Resampling, ...]
#: key `interpolation` -> filters; training draws one of them for each image, evaluation uses the last
FILTERS: dict[str, Filters] = {
    "nearest": (Resampling.NEAREST,),
    "bilinear": (Resampling.BILINEAR,),
    "bicubic": (Resampling.BICUBIC,),
    "lanczos": (Resampling.LANCZOS,),
    "random": (Resampling.BILINEAR, Resampling.BICUBIC),
}
_LONGEST_ASPECT = 16


@dataclass(frozen=True)
class EvalTransform:
    """PIL RGB image -> its center crop of `side` squared pixels after the shorter side was resized to `shorter`.

    Of an image longer than 16:1 only the middle is resized, since all of it might not fit in memory.
    """

    side: int
    shorter: int
    resample: Resampling
    mode: str

    def __call__(self, image: Image.Image) -> Image.Image:
        image = in_mode(image, self.mode)
        return center_crop(resize_shorter(limit_aspect(image), self.shorter, self.resample), self.side)


def build_eval_transform(aug: Augmentation, *, in_channels: int = 3) -> EvalTransform:
    """The center crop of aug.image_resize squared; the shorter side is resized to image_resize / crop_pct.

    The same image gives the same pixels as timm's `create_transform` (sides rounded down, crop rounded half to even).
    """
    shorter = math.floor(aug.image_resize / aug.crop_pct)
    return EvalTransform(aug.image_resize, shorter, FILTERS[aug.interpolation][-1], image_mode(in_channels))


def resize_shorter(image: Image.Image, shorter: int, resample: Resampling) -> Image.Image:
    """`image` with its shorter side `shorter` pixels long and the longer one in proportion, rounded down."""
    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    return image if size == image.size else image.resize(size, resample)


def center_crop(image: Image.Image, side: int) -> Image.Image:
    """The middle side x side pixels. Half a pixel is rounded to even, as in torchvision."""
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def limit_aspect(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than 16:1, cut equally at both ends."""
    width, height = image.size
    surplus = max(width, height) - _LONGEST_ASPECT * min(width, height)
    if surplus < 2:
        return image
    cut = surplus // 2
    return image.crop((cut, 0, width - cut, height) if width > height else (0, cut, width, height - cut))


def image_mode(in_channels: int) -> str:
    """Pillow's name for color (3 channels) or gray (1)."""
    return "RGB" if in_channels == 3 else "L"


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)
