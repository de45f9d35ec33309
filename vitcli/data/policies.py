"""Tables of augmentation policies: which operations, how likely, how strong. The operations are in `augment_ops.py`."""

Step = tuple[str, float, float]  # operation, probability, magnitude

#: RandAugment's operations (Cubuk et al. 2019, with SolarizeAdd and without Cutout, as in the EfficientNet code)
PLAIN_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
_GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
#: the same, with the variants whose effect grows with the magnitude
INCREASING_OPS = tuple(name + "Increasing" if name in _GROWING else name for name in PLAIN_OPS)

#: how much a part `w0` or `tweights` favors each operation
WEIGHTS = {
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    "TranslateXRel": 1.0,
    "TranslateYRel": 1.0,
    "Color": 0.25,
    "Sharpness": 0.25,
    "AutoContrast": 0.25,
    "Solarize": 0.05,
    "SolarizeAdd": 0.05,
    "Contrast": 0.05,
    "Brightness": 0.05,
    "Equalize": 0.05,
    "Posterize": 0.05,
    "Invert": 0.05,
}

#: other sets of operations for RandAugment, by the name that follows `t`, with weights
OP_SETS: dict[str, dict[str, float]] = {
    "3a": {"SolarizeIncreasing": 1, "Desaturate": 1, "GaussianBlur": 1},
    "3aw": {
        "SolarizeIncreasing": 6,
        "Desaturate": 6,
        "GaussianBlur": 6,
        "Rotate": 3,
        "ShearX": 2,
        "ShearY": 2,
        "PosterizeIncreasing": 1,
        "AutoContrast": 1,
        "ColorIncreasing": 1,
        "SharpnessIncreasing": 1,
        "ContrastIncreasing": 1,
        "BrightnessIncreasing": 1,
        "Equalize": 1,
        "Invert": 1,
    },
    "weights": {name: WEIGHTS[name.removesuffix("Increasing")] for name in INCREASING_OPS},
}

#: AugMix's operations: none that the corruptions of its test set also use, but color, contrast, brightness, sharpness
AUGMIX_OPS = (
    "AutoContrast",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "Equalize",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)

# AutoAugment's policy for ImageNet (arXiv 1805.09501, table 9): operation, probability, magnitude, twice a line.
_ORIGINAL = """
Posterize    0.4 8   Rotate       0.6 9
Solarize     0.6 5   AutoContrast 0.6 5
Equalize     0.8 8   Equalize     0.6 3
Posterize    0.6 7   Posterize    0.6 6
Equalize     0.4 7   Solarize     0.2 4
Equalize     0.4 4   Rotate       0.8 8
Solarize     0.6 3   Equalize     0.6 7
Posterize    0.8 5   Equalize     1.0 2
Rotate       0.2 3   Solarize     0.6 8
Equalize     0.6 8   Posterize    0.4 6
Rotate       0.8 8   Color        0.4 0
Rotate       0.4 9   Equalize     0.6 2
Equalize     0.0 7   Equalize     0.8 8
Invert       0.6 4   Equalize     1.0 8
Color        0.6 4   Contrast     1.0 8
Rotate       0.8 8   Color        1.0 2
Color        0.8 8   Solarize     0.8 7
Sharpness    0.4 7   Invert       0.6 8
ShearX       0.6 5   Equalize     1.0 9
Color        0.4 0   Equalize     0.6 3
Equalize     0.4 7   Solarize     0.2 4
Solarize     0.6 5   AutoContrast 0.6 5
Invert       0.6 4   Equalize     1.0 8
Color        0.6 4   Contrast     1.0 8
Equalize     0.8 8   Equalize     0.6 3
"""

# The policy "v0" of the TPU EfficientNet code (tensorflow/tpu, models/official/efficientnet/autoaugment.py).
_V0 = """
Equalize     0.8 1   ShearY        0.8 4
Color        0.4 9   Equalize      0.6 3
Color        0.4 1   Rotate        0.6 8
Solarize     0.8 3   Equalize      0.4 7
Solarize     0.4 2   Solarize      0.6 2
Color        0.2 0   Equalize      0.8 8
Equalize     0.4 8   SolarizeAdd   0.8 3
ShearX       0.2 9   Rotate        0.6 8
Color        0.6 1   Equalize      1.0 2
Invert       0.4 9   Rotate        0.6 0
Equalize     1.0 9   ShearY        0.6 3
Color        0.4 7   Equalize      0.6 0
Posterize    0.4 6   AutoContrast  0.4 7
Solarize     0.6 8   Color         0.6 9
Solarize     0.2 4   Rotate        0.8 9
Rotate       1.0 7   TranslateYRel 0.8 9
ShearX       0.0 0   Solarize      0.8 4
ShearY       0.8 0   Color         0.6 4
Color        1.0 0   Rotate        0.6 2
Equalize     0.8 4   Equalize      0.0 8
Equalize     1.0 4   AutoContrast  0.6 2
ShearY       0.4 7   SolarizeAdd   0.6 7
Posterize    0.8 2   Solarize      0.6 10
Solarize     0.6 8   Equalize      0.6 1
Color        0.8 6   Rotate        0.4 5
"""


def _read(table: str, posterize: str) -> tuple[tuple[Step, Step], ...]:
    rows = [line.replace("Posterize", posterize).split() for line in table.strip().splitlines()]
    return tuple(((a, float(p), float(m)), (b, float(q), float(n))) for a, p, m, b, q, n in rows)


#: name -> sub-policies, each of which is a few steps in order
POLICIES: dict[str, tuple[tuple[Step, ...], ...]] = {
    "original": _read(_ORIGINAL, "PosterizeOriginal"),
    "originalr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "autoaug": _read(_ORIGINAL, "PosterizeOriginal"),
    "autoaugr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "v0": _read(_V0, "Posterize"),
    "v0r": _read(_V0, "PosterizeIncreasing"),
    "3a": ((("Solarize", 1.0, 5.0),), (("Desaturate", 1.0, 10.0),), (("GaussianBlurRand", 1.0, 10.0),)),
}
