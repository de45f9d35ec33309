"""The transform of one image for evaluation: a fixed crop. It needs only Pillow, so that predictions start fast.

The geometry is that of timm and torchvision: the same image gives the same pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from PIL import Image

from vitcli.data.bands import Bands, Picture
from vitcli.data.pixel_format import PixelFormat
from vitcli.data.pixels import Pixels
from vitcli.image_size import ImageSize, height_and_width
from vitcli.recipe.schema import Augmentation

Resampling = Image.Resampling
AnyPicture = TypeVar("AnyPicture", Picture, Pixels)
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
    """Any picture -> the center of the resized picture, in the format of the network; sizes are (height, width) in px.

    size: of the result. scaled: that the image is resized to, by `crop_mode`: to cover it (center), to it (squash), or
    to fit into it (border, of the color `fill`). Of an image longer than 16:1 that is resized to cover, only the middle
    is resized, since all of it might not fit in memory.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    resample: Resampling
    format: PixelFormat
    crop_mode: Literal["center", "squash", "border"] = "center"
    fill: tuple[int, ...] = ()

    def __call__(self, image: Picture) -> Picture:
        image = self.format(image)
        match self.crop_mode:
            case "squash":
                image = image.resize((self.scaled[1], self.scaled[0]), self.resample)
            case "border":
                image = with_border(resize_into(image, self.scaled, self.resample), self.size, self.fill)
            case "center":
                image = resize_to_cover(limit_aspect(image), self.scaled, self.resample)
        return center_crop(image, self.size)

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Of an image of `size` (width, height) in px, what the result shows: left, top, right, bottom.

        It is larger than the image where a border is added. The rounding of the resized image is left out.
        """
        width, height = size
        if self.crop_mode == "squash":
            scale_x, scale_y = width / self.scaled[1], height / self.scaled[0]
        elif self.crop_mode == "border":
            scale_x = scale_y = max(width / self.scaled[1], height / self.scaled[0])
        else:
            resized = min(width, _LONGEST_ASPECT * height), min(height, _LONGEST_ASPECT * width)
            scale_x = scale_y = min(resized[0] / self.scaled[1], resized[1] / self.scaled[0])
        across, down = self.size[1] * scale_x, self.size[0] * scale_y
        return (width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2


def build_eval_transform(aug: Augmentation, *, in_channels: int = 3) -> EvalTransform:
    """The center crop of aug.image_resize; before it, the image is resized to image_resize / crop_pct by crop_mode.

    The same image gives the same pixels as timm's `create_transform` (sides rounded down, crop rounded half to even).
    """
    height, width = (math.floor(side / aug.crop_pct) for side in aug.height_and_width)
    return EvalTransform(
        size=aug.height_and_width,
        scaled=(height, width),
        resample=FILTERS[aug.interpolation][-1],
        format=PixelFormat(in_channels, aug.pixel_range),
        crop_mode=aug.crop_mode,
        fill=border_color(aug.mean, in_channels),
    )


def border_color(mean: Sequence[float], in_channels: int) -> tuple[int, ...]:
    """The mean color in the values of pixels, one for each channel; rounded as by timm."""
    color = tuple(min(max(round(255 * value), 0), 255) for value in mean)
    return color * in_channels if len(color) == 1 else color


def resize_to_cover(image: AnyPicture, size: tuple[int, int], resample: Resampling) -> AnyPicture:
    """`image` with its aspect ratio, as small as possible without being smaller than (height, width) on any side."""
    if size[0] == size[1]:
        return resize_shorter(image, size[0], resample)
    ratio = min(image.height / size[0], image.width / size[1])
    return image.resize((round(image.width / ratio), round(image.height / ratio)), resample)


def resize_into(image: Picture, size: tuple[int, int], resample: Resampling) -> Picture:
    """`image` with its aspect ratio, as large as possible without being larger than (height, width) on any side."""
    ratio = max(image.height / size[0], image.width / size[1])
    return image.resize((max(round(image.width / ratio), 1), max(round(image.height / ratio), 1)), resample)


def with_border(image: Picture, size: tuple[int, int], fill: tuple[int, ...]) -> Picture:
    """`image` in the middle of at least (height, width) pixels; half a pixel is rounded up and to the left."""
    if isinstance(image, Bands):
        return Bands(tuple(_bordered(band, size, (value,)) for band, value in zip(image.bands, fill, strict=True)))
    return _bordered(image, size, fill)


def _bordered(image: Image.Image, size: tuple[int, int], fill: tuple[int, ...]) -> Image.Image:
    width, height = max(image.width, size[1]), max(image.height, size[0])
    canvas = Image.new(image.mode, (width, height), fill[0] if image.mode == "L" else fill)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def resize_shorter(image: AnyPicture, shorter: int, resample: Resampling) -> AnyPicture:
    """`image` with its shorter side `shorter` pixels long and the longer one in proportion, rounded down."""
    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    return image if size == image.size else image.resize(size, resample)


def center_crop(image: Picture, size: ImageSize) -> Picture:
    """The middle `size` pixels. Half a pixel is rounded to even, as in torchvision."""
    height, width = height_and_width(size)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def limit_aspect(image: AnyPicture) -> AnyPicture:
    """The middle of an image that is longer than 16:1, cut equally at both ends."""
    width, height = image.size
    surplus = max(width, height) - _LONGEST_ASPECT * min(width, height)
    if surplus < 2:
        return image
    cut = surplus // 2
    return image.crop((cut, 0, width - cut, height) if width > height else (0, cut, width, height - cut))
