"""Tables of augmentation policies: operations, probabilities, magnitudes. The operations are in `augment_ops.py`."""

Step = tuple[str, float, float]  # operation, probability, magnitude

#: RandAugment's operations (Cubuk et al. 2019, with SolarizeAdd and without Cutout, as in the EfficientNet code)
PLAIN_OPS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast",
    "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
_GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
#: the same operations, in the variants whose effect grows with the magnitude
INCREASING_OPS = tuple(name + "Increasing" if name in _GROWING else name for name in PLAIN_OPS)

#: the three groups of 3-Augment as operations of RandAugment: the part `t3a`
THREE_OPS = ("SolarizeIncreasing", "Desaturate", "GaussianBlur")

#: AugMix's operations: those that its test set uses as corruptions are excluded, except the enhancers
AUGMIX_OPS = (
    "AutoContrast", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "Equalize",
    "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip

# AutoAugment's policy for ImageNet (arXiv 1805.09501, table 9): operation, probability, magnitude; two per line.
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


def _read(table: str, posterize: str) -> tuple[tuple[Step, Step], ...]:
    rows = [line.replace("Posterize", posterize).split() for line in table.strip().splitlines()]
    return tuple(((a, float(p), float(m)), (b, float(q), float(n))) for a, p, m, b, q, n in rows)


#: name -> sub-policies, each of which is a sequence of steps
POLICIES: dict[str, tuple[tuple[Step, ...], ...]] = {
    "original": _read(_ORIGINAL, "PosterizeOriginal"),
    "originalr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "autoaug": _read(_ORIGINAL, "PosterizeOriginal"),
    "autoaugr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "3a": ((("Solarize", 1.0, 5.0),), (("Desaturate", 1.0, 10.0),), (("GaussianBlurRand", 1.0, 10.0),)),
}
