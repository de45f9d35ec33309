"""Many crops of one image for evaluation: five, the ten of AlexNet, the 144 of GoogLeNet. Nothing here is random.

Corners and centers are those of torchvision's FiveCrop, pixel for pixel, after the shorter side was resized to
`scale` x `size`. So a small image is enlarged first, and every crop lies inside.
"""

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from vitcli.data.bands import Picture
from vitcli.data.eval_transform import (
    EvalTransform,
    Resampling,
    build_eval_transform,
    center_crop,
    limit_aspect,
    resize_shorter,
)  # fmt: skip
from vitcli.errors import UsageError
from vitcli.image_size import in_words
from vitcli.recipe.schema import Augmentation

Images = list[Picture]
Average = Literal["prob", "logit"]


#: option `--eval_crops` -> number of crops at one scale, and the scales. 5 at scale 1.5 is the protocol of
#: miguelmartin75/vit, the others are of papers
PROTOCOLS: dict[str, tuple[int, tuple[float, ...]]] = {
    "1": (1, (1.0,)),
    "5": (5, (1.5,)),
    "10": (10, (256 / 224,)),
    "144": (36, (256 / 224, 288 / 224, 320 / 224, 352 / 224)),
}
MAX_SCALE = 8.0
_SCALES_HELP = f"give numbers from 1 to {MAX_SCALE:g}, separated by commas, such as 1.0,1.5: shorter side / crop side"


@dataclass(frozen=True)
class Crops:
    """Which crops of an image are evaluated.

    Args:
        protocol: a name of `PROTOCOLS`.
        scales: shorter side of the resized image / side of the crop, 1 or more; None: those of the protocol.
        average: of the probabilities of the crops, or of their logits.

    Raises:
        UsageError: another value.
    """

    protocol: str
    scales: tuple[float, ...] | None = None
    average: Average = "prob"

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise UsageError(f"eval_crops is {self.protocol}", help=f"allowed are {', '.join(PROTOCOLS)}")
        if self.average not in ("prob", "logit"):
            raise UsageError(f"crop_average is {self.average}", help="allowed are prob, logit")
        if not self.used_scales or not all(1 <= scale <= MAX_SCALE for scale in self.used_scales):
            raise UsageError(f"crop_scales is {list(self.used_scales)}", help=_SCALES_HELP)

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:.3g}" for scale in self.used_scales)
        mean = {"prob": "probability", "logit": "logit"}[self.average]
        return f"the mean {mean} of {self.num_crops} crop{'s' * (self.num_crops > 1)} (scale {scales})"

    @property
    def used_scales(self) -> tuple[float, ...]:
        return PROTOCOLS[self.protocol][1] if self.scales is None else self.scales

    @property
    def num_crops(self) -> int:
        return PROTOCOLS[self.protocol][0] * len(self.used_scales)


def read_scales(text: str) -> tuple[float, ...]:
    """ "1.0,1.5" -> (1.0, 1.5). Raises UsageError."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"crop_scales is {text!r}", help=_SCALES_HELP) from None


@dataclass(frozen=True)
class CropTransform:
    """PIL RGB image -> [what `single` makes of it, then `crops.num_crops` crops], all of one size."""

    crops: Crops
    single: EvalTransform

    def __call__(self, image: Picture) -> Images:
        protocol, size, resample = self.crops.protocol, self.single.size[0], self.single.resample
        rounded = math.floor if protocol in ("1", "5") else round  # as their sources do
        image = self.single.format(image)
        found = [self.single(image)]
        for scale in self.crops.used_scales:
            resized = resize_shorter(limit_aspect(image), rounded(scale * size), resample)
            found += crops_of(resized, protocol, size, resample)
        return found


def build_crop_transform(crops: Crops, aug: Augmentation, *, in_channels: int = 3) -> CropTransform:
    """The single crop of the recipe's evaluation, and `crops` in addition; UsageError if the input is not square."""
    if not isinstance(aug.image_resize, int):
        message = f"eval_crops takes square parts of an image, and the input is {in_words(aug.image_resize)}"
        raise UsageError(message, help="remove eval_crops")
    return CropTransform(crops, build_eval_transform(aug, in_channels=in_channels))


def crops_of(image: Picture, protocol: str, size: int, resample: Resampling) -> Images:
    """The crops of a protocol at one scale.

    10: five of the image and five of its mirror image (Krizhevsky et al. 2012, section 4.1); torchvision's TenCrop.
    144: of each of three squares, five crops and the whole, resized; then the same mirrored (Szegedy et al. 2014, 7).
    """
    if protocol == "1":
        return [center_crop(image, size)]
    if protocol == "5":
        return five_crops(image, size)
    if protocol == "10":
        return five_crops(image, size) + five_crops(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), size)
    views = []
    for square in three_squares(image):
        views += [*five_crops(square, size), square.resize((size, size), resample)]
    return views + [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in views]


def five_crops(image: Picture, size: int) -> Images:
    """Top left, top right, bottom left, bottom right, center."""
    right, bottom = image.width - size, image.height - size
    corners = [(left, top) for top in (0, bottom) for left in (0, right)]
    boxes = [(left, top, left + size, top + size) for left, top in corners]
    return [*(image.crop(box) for box in boxes), center_crop(image, size)]


def three_squares(image: Picture) -> Images:
    """The left, center and right squares of an image; top, center and bottom if it is taller than wide."""
    side = min(image.size)
    ends = (0, 0), (image.width - side, image.height - side)
    first, last = (image.crop((left, top, left + side, top + side)) for left, top in ends)
    return [first, center_crop(image, side), last]
