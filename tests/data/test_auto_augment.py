"""Policies: timm's and torchvision's own code, driven by the same random numbers, must give the same pixels."""

import pickle
import random
import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment as timms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import TrivialAugmentWide, _apply_op

from tests.support.images import photo, same
from vitcli.data.augment_ops import WIDE_OPS, Canvas, apply_op, trivial_augment, wide_op
from vitcli.data.auto_augment import INCREASING_OPS, PLAIN_OPS, POLICIES, THREE_OPS, Noise, build_policy, parse_policy
from vitcli.recipe import augment_policy
from vitcli.recipe.augment_policy import check_policy

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
MEAN, FILL = (0.485, 0.456, 0.406), (124, 116, 104)
IMAGES = [photo(40, 30, seed) for seed in range(3)] + [Image.new("RGB", (9, 9), (200, 10, 90))]


@pytest.fixture(autouse=True)
def posterize_to_zero_bits(monkeypatch):
    """Up to Pillow 12, 0 bits meant black; Pillow 13 refuses them, and timm's policies fail at magnitude 10."""
    refusing = ImageOps.posterize
    black = lambda image: Image.new(image.mode, image.size)  # noqa: E731
    monkeypatch.setattr(ImageOps, "posterize", lambda image, bits: refusing(image, bits) if bits > 0 else black(image))


def timm_hparams(filters: tuple) -> dict:
    return {"img_mean": FILL, "interpolation": filters if len(filters) > 1 else filters[0]}


@pytest.mark.parametrize("name", sorted(set(timms.NAME_TO_OP) - {"TranslateX", "TranslateY"}))  # pixels; in no policy
@pytest.mark.parametrize("filters", [(BICUBIC,), (BILINEAR, BICUBIC)], ids=["bicubic", "random"])
def test_each_operation_is_timms(name, filters):
    for magnitude in (0, 0.3, 2.5, 5, 7.2, 9, 10):
        op = timms.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=timm_hparams(filters))
        for seed, image in enumerate(IMAGES):
            random.seed(seed)
            ours = apply_op(image, name, magnitude, random.Random(seed), Canvas(FILL, filters))
            assert same(ours, op(image))


def test_policies_have_timms_operations():
    assert list(PLAIN_OPS) == timms._RAND_TRANSFORMS
    assert list(INCREASING_OPS) == timms._RAND_INCREASING_TRANSFORMS
    assert list(THREE_OPS) == timms._RAND_3A


@pytest.mark.parametrize(
    ("text", "timm_text"),
    [(text, text) for text in ("original", "originalr", "3a", "original-mstd0.5")]
    + [("autoaug-mstd0.5", "original-mstd0.5"), ("autoaug", "original-mstd0.5"), ("autoaugr", "originalr-mstd0.5")],
)
def test_auto_augment_is_timms(text, timm_text):
    ours = build_policy(text, mean=MEAN, mode="RGB", filters=(BICUBIC,))
    theirs = timms.auto_augment_transform(timm_text, timm_hparams((BICUBIC,)))
    for seed in range(120):
        random.seed(seed)
        image = IMAGES[seed % len(IMAGES)]
        assert same(ours(image, random.Random(seed)), theirs(image)), seed


@pytest.mark.parametrize(
    "text",
    [
        "rand",
        "rand-m9-mstd0.5-inc1",
        "rand-m7-n3-p0.8",
        "rand-m15-mmax20-inc1",
        "rand-m9-mstd101",
        "rand-t3a",
        "rand-m9-mstd2-inc0",
    ],
)
def test_rand_augment_is_timms(text, monkeypatch):
    """timm draws the operations by NumPy; here it is made to draw them as we do, the rest is its own."""
    monkeypatch.setattr(timms.np.random, "choice", lambda ops, count, replace, p: random.choices(ops, k=count))
    ours = build_policy(text, mean=MEAN, mode="RGB", filters=(BILINEAR, BICUBIC))
    theirs = timms.rand_augment_transform(text, timm_hparams((BILINEAR, BICUBIC)))
    for seed in range(60):
        random.seed(seed)
        image = IMAGES[seed % len(IMAGES)]
        assert same(ours(image, random.Random(seed)), theirs(image)), seed


def test_randaug_is_mindcvs_spelling():
    assert parse_policy("randaug-m7-mstd0.5") == parse_policy("rand-m7-mstd0.5") == parse_policy("randaug-m7")
    assert parse_policy("randaug-m7-inc0") != parse_policy("randaug-m7-inc1")


def test_rand_augment_draws_uniformly_and_applies_with_its_probability(monkeypatch):
    """Of 2 * 6000 draws, each operation is applied in 1/4 of 1/15."""
    counts = Counter()

    def count(image, name, *_):
        counts[name] += 1
        return image

    monkeypatch.setattr("vitcli.data.auto_augment.apply_op", count)
    policy, rng = build_policy("rand-p0.25", mean=MEAN, mode="RGB", filters=(BICUBIC,)), random.Random(1)
    for _ in range(6000):
        policy(IMAGES[0], rng)
    drawn = np.array([counts[name] for name in PLAIN_OPS]) / 12000
    assert sum(counts.values()) == sum(counts[name] for name in PLAIN_OPS)
    assert np.abs(drawn - 0.25 / 15).max() < 0.005
    assert abs(drawn.sum() - 0.25) < 0.02


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "autoaug", "augmix", "trivialaugwide", "3a"])
def test_a_policy_survives_pickling(text):
    """For worker processes that are started by spawn."""
    policy = build_policy(text, mean=MEAN, mode="RGB", filters=(BILINEAR, BICUBIC))
    copy = pickle.loads(pickle.dumps(policy))
    assert all(same(policy(photo(), random.Random(seed)), copy(photo(), random.Random(seed))) for seed in range(5))


def test_magnitude_noise():
    rng = random.Random(0)
    drawn = np.array([Noise(0.5).draw(5, rng) for _ in range(4000)])
    assert abs(drawn.mean() - 5) < 0.03
    assert abs(drawn.std() - 0.5) < 0.02
    near_top = np.array([Noise(0.5).draw(9.8, rng) for _ in range(1000)])
    assert near_top.max() == 10
    assert np.mean(near_top == 10) > 0.2
    assert np.array([Noise(0.5, top=12).draw(9.8, rng) for _ in range(1000)]).max() > 10.5
    uniform = np.array([Noise(float("inf")).draw(8, rng) for _ in range(4000)])
    assert uniform.min() < 0.1
    assert uniform.max() > 7.9
    assert abs(uniform.mean() - 4) < 0.15
    assert Noise().draw(9, rng) == 9


#: what the strength 0..1 means for each operation of TrivialAugment
WIDE_MAGNITUDE = {
    "ShearX": lambda s: 0.99 * s,
    "ShearY": lambda s: 0.99 * s,
    "TranslateX": lambda s: 32 * s,
    "TranslateY": lambda s: 32 * s,
    "Rotate": lambda s: 135 * s,
    "Posterize": lambda s: 8 - round(6 * s),
    "Solarize": lambda s: 255 - 255 * s,
} | dict.fromkeys(["Brightness", "Color", "Contrast", "Sharpness"], lambda s: 0.99 * s)


@pytest.mark.parametrize("name", WIDE_OPS)
def test_trivial_augment_is_torchvisions(name):
    magnitudes, signed = TrivialAugmentWide()._augmentation_space(31)[name]
    image, canvas = photo(60, 40), Canvas(FILL, (Image.Resampling.NEAREST,))
    positive, negative = (
        next(seed for seed in range(9) if (random.Random(seed).random() > 0.5) == sign) for sign in (False, True)
    )
    for step in range(31):
        magnitude = WIDE_MAGNITUDE.get(name, lambda _: 0.0)(step / 30)
        assert not magnitudes.ndim or abs(float(magnitudes[step]) - magnitude) < 1e-4
        for seed, sign in [(positive, 1), (negative, -1)] if signed else [(0, 1)]:
            ours = wide_op(image, name, step / 30, random.Random(seed), canvas)
            factor = -sign if name.startswith("Translate") else sign  # theirs moves the image, ours the window
            theirs = _apply_op(image, name, factor * magnitude, InterpolationMode.NEAREST, list(FILL))
            wrong = np.mean(np.any(np.asarray(ours) != np.asarray(theirs), axis=-1))
            assert wrong <= (0.02 if name.startswith("Shear") else 0), (step, sign, wrong)


def test_trivial_augment_draws_every_operation():
    assert set(WIDE_OPS) == set(TrivialAugmentWide()._augmentation_space(31))
    outputs = {
        trivial_augment(photo(12, 12), random.Random(seed), Canvas(FILL, (BICUBIC,))).tobytes() for seed in range(300)
    }
    assert len(outputs) > 150


def test_augmix_mixes_and_stays_close():
    mild = build_policy("augmix-m1", mean=MEAN, mode="RGB", filters=(BICUBIC,))
    strong = build_policy("augmix-m9-w4-d2-mstd0.5", mean=MEAN, mode="RGB", filters=(BICUBIC,))
    image = photo(32, 32)

    def distance(policy):
        mixed = [np.asarray(policy(image, random.Random(seed)), dtype=float) for seed in range(40)]
        return np.mean([np.abs(pixels - np.asarray(image)).mean() for pixels in mixed])

    assert 0 < distance(mild) < distance(strong) < 60


def test_augmix_is_timms_with_the_same_draws(monkeypatch):
    """One chain of one operation, so that timm's NumPy draws can be replaced one by one."""
    ours = build_policy("augmix-m5-w1-d1-mstd0", mean=MEAN, mode="RGB", filters=(BICUBIC,))
    for seed in range(30):
        rng = random.Random(seed)
        rng.gammavariate(1, 1)
        share = rng.betavariate(1, 1)
        name = rng.choices(timms._AUGMIX_TRANSFORMS)[0]
        theirs = timms.augment_and_mix_transform(
            "augmix-m5-w1-d1-mstd0", timm_hparams((BICUBIC,)) | {"translate_pct": 0.3}
        )
        monkeypatch.setattr(timms.np.random, "beta", lambda *_, share=share: share)
        monkeypatch.setattr(
            timms.np.random, "choice", lambda ops, *_, name=name, **__: [op for op in ops if op.name == name]
        )
        random.setstate(rng.getstate())
        assert same(ours(photo(), random.Random(seed)), theirs(photo())), (seed, name)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rnd-m9", "'rnd'"),
        ("", "''"),
        ("rand-m9-q3", "'q3'"),
        ("rand-m", "'m'"),
        ("rand-mnine", "'mnine'"),
        ("rand-m-1", "'m'"),
        ("rand-p1.5", "'p1.5'"),
        ("rand-n0", "'n0'"),
        ("rand-n2.5", "'n2.5'"),
        ("rand-inc2", "'inc2'"),
        ("rand-m9-m8", "twice"),
        ("rand-tfoo", "t3a"),
        ("rand-w0", "'w0'"),
        ("rand-tweights", "only t3a"),
        ("rand-t3aw", "only t3a"),
        ("v0", "'v0'"),
        ("autoaug-m9", "'m9'"),
        ("trivialaugwide-m9", "takes no parts"),
        ("augmix-d-1", "'d'"),
        ("rand m9", "'rand m9'"),
    ],
)
def test_a_policy_that_is_not_understood_names_the_part(text, named):
    message = check_policy(text)
    assert message is not None
    assert named in message
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_policy(text)


@pytest.mark.parametrize(
    "text", ["rand-m9-n2-p0.5-mmax10", "rand-m9-mstd0.5-inc1", "augmix-m5-w4-d2", "autoaugr", "rand-mstd101"]
)
def test_a_policy_that_is_understood(text):
    assert check_policy(text) is None


def test_the_language_names_the_tables_there_are():
    assert set(augment_policy.TABLES) == set(POLICIES)


def test_the_global_generators_are_left_alone():
    random.seed(0)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for text in ("rand-m9-mstd0.5-inc1", "autoaug", "augmix", "trivialaugwide", "3a"):
        build_policy(text, mean=MEAN, mode="RGB", filters=(BILINEAR, BICUBIC))(photo(), random.Random(0))
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert torch.equal(states[2], torch.get_rng_state())
