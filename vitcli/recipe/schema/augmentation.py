"""How an image becomes the input of the network, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from vitcli.image_size import height_and_width, shortest
from vitcli.recipe.augment_policy import check_policy
from vitcli.recipe.schema.key import Finding, PerView, Positive, Probability, Range, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


Limits = tuple[float, float]
Side = Annotated[int, Field(ge=8, le=8192)]
Size = Annotated[Side | tuple[Side, Side], AfterValidator(shortest)]


#: the defaults of `mean` and `std` if there are not three channels: the averages of those for color
GRAY = {"mean": (0.449,), "std": (0.226,)}


class Augmentation(Section):
    image_resize: Size = key(224, "Size of the network's input in pixels: the side of a square, or [height, width].")
    train_crop: Literal["random_resized", "padded"] = key(
        "random_resized",
        "random_resized: a random part of the image, see scale and ratio. padded: a random square of the resized image "
        "with 4 reflected pixels around it (CIFAR, DeiT III).",
    )
    decode: Literal["exact", "scaled"] = key(
        "exact",
        "scaled: a JPEG file is reduced to 1/2, 1/4 or 1/8 while it is decoded if the random crop is at least that "
        "much larger than the input. Faster for small inputs; pixels differ slightly.",
    )
    scale: Range = key((0.08, 1.0), "Area of the random crop as a share of the image.")
    ratio: Range = key((3 / 4, 4 / 3), "Aspect ratio of the random crop.")
    hflip: Probability = key(0.5, "Probability of a horizontal flip.")
    vflip: Probability = key(0.0, "Probability of a vertical flip.")
    color_jitter: float | tuple[float, ...] | None = key(
        None, "Strength of brightness, contrast and saturation jitter. No effect with auto_augment, except 3a."
    )
    color_jitter_prob: PerView = key(1.0, "Probability of color jitter; a list: one for each view.")
    grayscale_prob: PerView = key(0.0, "Probability of conversion to gray; a list: one for each view.")
    blur_prob: PerView = key(0.0, "Probability of Gaussian blur; a list: one for each view.")
    blur_sigma: Range = key((0.1, 2.0), "Range of the standard deviation of the blur in pixels.")
    solarize_prob: PerView = key(0.0, "Probability of solarization; a list: one for each view.")
    solarize_threshold: int = key(128, "Solarization inverts values from this one on (0 to 256).", ge=0, le=256)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "random"] = key(
        "bicubic", "Interpolation of crop, resize and augmentation."
    )
    auto_augment: str | None = key(None, "Augmentation policy, such as rand-m9-mstd0.5-inc1, autoaug, trivialaugwide.")
    aug_repeats: int = key(
        0,
        "Repeated augmentation: number of differently augmented copies of each image in a batch. "
        "The number of images per epoch does not change. 0: off.",
        ge=0,
    )
    re_prob: Probability = key(0.0, "Probability of random erasing.")
    re_mode: Literal["const", "rand", "pixel"] = key(
        "const", "Fill of the erased box. const: re_value; rand: one random color; pixel: noise per pixel."
    )
    re_value: float = key(0.0, "Fill of const erasing, after normalization. 0: the mean color.")
    re_scale: Range = key((0.02, 0.33), "Area of the erased box as a share of the image.")
    re_ratio: Range = key((0.3, 3.3), "Aspect ratio of the erased box.")
    re_max_attempts: int = key(10, "Attempts to find a box that fits.", ge=1)
    mixup: float = key(0.0, "Alpha of mixup's beta distribution. 0: off.", ge=0)
    cutmix: float = key(0.0, "Alpha of cutmix's beta distribution. 0: off.", ge=0)
    cutmix_prob: Probability = key(1.0, "Probability that a batch is mixed, by mixup or cutmix.")
    mixup_switch_prob: Probability = key(0.5, "Probability of cutmix if both are on.")
    mixup_off_epoch: int = key(0, "Epoch from which batches are no longer mixed. 0: never.", ge=0)
    crop_pct: float = key(0.875, "Evaluation: share of the resized image that the center crop keeps.", ge=0.1, le=1)
    crop_mode: Literal["center", "squash", "border"] = key(
        "center",
        "Evaluation: how an image is resized before the center crop. center: it covers the input; squash: its aspect "
        "ratio becomes that of the input; border: it fits into the input, with a border of the mean color.",
    )
    mean: tuple[float, ...] = key((0.485, 0.456, 0.406), "Mean of each channel, in units of the full range.")
    std: tuple[Positive, ...] = key((0.229, 0.224, 0.225), "Standard deviation of each channel.")

    pixel_range: Literal["auto"] | Limits = key(
        "auto",
        "Values that are black and white in images of more than 8 bits per channel, such as [0, 4095] for 12 bits. "
        "auto: all 16 bits, if an image uses the upper half of their values; otherwise it is refused.",
    )

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Of the network's input, in pixels."""
        return height_and_width(self.image_resize)

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        yield from self._ranges()
        for name in ("mean", "std"):
            given, channels = len(getattr(self, name)), recipe.model.in_channels
            if given not in (1, channels):
                help = f"give 1 or {channels} values" if channels > 1 else "give 1 value"
                yield name, f"`{name}` has {given} values, but in_channels is {channels}", help
        yield from self._colors(recipe.model.in_channels)
        if isinstance(self.pixel_range, tuple) and self.pixel_range[0] >= self.pixel_range[1]:
            low, high = self.pixel_range
            yield "pixel_range", f"`pixel_range` is the darkest and the brightest value, not [{low:g}, {high:g}]", None
        if self.auto_augment and (wrong := check_policy(self.auto_augment)):
            yield "auto_augment", wrong, "for example rand-m9-mstd0.5-inc1, autoaug, trivialaugwide"
        jitter = self.color_jitter if isinstance(self.color_jitter, tuple) else (self.color_jitter or 0.0,) * 3
        if len(jitter) not in (3, 4) or min(jitter) < 0 or max(jitter[3:], default=0) > 0.5:
            help = "give one number, three (brightness, contrast, saturation), or four with hue, which is at most 0.5"
            yield "color_jitter", f"`color_jitter` cannot be {list(jitter)}", help

    def _colors(self, in_channels: int) -> Iterator[Finding]:
        """Operations on colors need to know which channel is which."""
        for name in ("auto_augment", "color_jitter", "grayscale_prob", "solarize_prob"):
            value = getattr(self, name)
            if in_channels not in (1, 3) and (any(value) if isinstance(value, tuple) else value):
                off = "null" if name in ("auto_augment", "color_jitter") else "0"
                message = f"`{name}` changes colors or gray values, but in_channels is {in_channels}"
                yield name, message, f"set it to {off}: crops, flips and blur are for any number of channels"

    def _ranges(self) -> Iterator[Finding]:
        for name in ("scale", "ratio", "re_scale", "re_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                wrong = f"`{name}` is a range from low to high, not [{low:g}, {high:g}]"
                yield name, wrong, f"write [{high:g}, {low:g}]"
            elif name in ("scale", "re_scale") and high > 1:
                yield name, f"`{name}` is a share of the image's area and cannot be above 1", None

    def notes(self, recipe: Recipe) -> Iterator[str]:
        channels = recipe.model.in_channels
        left = [name for name in GRAY if channels != 3 and name not in recipe.origins]
        if left:
            said = ", ".join(f"{name} {list(getattr(self, name))}" for name in left)
            yield f"{said}: averages of the defaults for color, since in_channels is {channels}"
        if self.color_jitter and self.auto_augment and "3a" not in self.auto_augment:
            yield from without_effect(recipe, "color_jitter", why=" with `auto_augment`")
        names = ("color_jitter_prob", "blur_sigma", "solarize_threshold")
        for name, switch in zip(names, ("color_jitter", "blur_prob", "solarize_prob"), strict=True):
            if not getattr(self, switch):
                yield from without_effect(recipe, name, why=f" without `{switch}`")
        if not (self.mixup or self.cutmix):
            names = ("cutmix_prob", "mixup_switch_prob", "mixup_off_epoch")
            yield from without_effect(recipe, *names, why=": mixup and cutmix are both 0")
        elif self.mixup_off_epoch >= recipe.scheduler.epoch_size:
            yield f"`mixup_off_epoch` {self.mixup_off_epoch} is not before the end: batches are mixed in all epochs"
        if self.train_crop == "padded":
            yield from without_effect(recipe, "scale", "ratio", why=" with `train_crop: padded`")
