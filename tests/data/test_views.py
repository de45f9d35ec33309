"""Views: operations are Pillow's and torchvision's, in BYOL's order, as likely as the recipe says, each by itself."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as tvf

from tests.data.test_transforms import Recorded, same
from tests.support.images import photo, picture
from vitcli.data.datasets import build_splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.streams import stream
from vitcli.data.transforms import to_uint8_tensor
from vitcli.data.views import build_views
from vitcli.errors import UsageError
from vitcli.recipe.schema import Augmentation, Dataset

#: the views of the BYOL paper (table 6)
BYOL = {
    "image_resize": 32, "color_jitter": (0.4, 0.4, 0.2, 0.1), "color_jitter_prob": 0.8, "grayscale_prob": 0.2,
    "blur_prob": (1.0, 0.1), "solarize_prob": (0.0, 0.2),
}  # fmt: skip
#: one augmentation for all views
EQUAL = Augmentation(**{**BYOL, "blur_prob": 0.5, "solarize_prob": 0.2})
WHOLE = {"image_resize": 16, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0}


def only(image: Image.Image, **keys) -> Image.Image:
    """The square `image` after nothing but the augmentation that `keys` turn on."""
    aug = Augmentation(**WHOLE | {"image_resize": image.width}, **keys)
    return build_views(aug, 1, in_channels=len(image.getbands()))[0](image, random.Random(0))


def test_grayscale_is_itu_601():
    image = photo(40, 40)
    gray = only(image, grayscale_prob=1.0)
    assert same(gray, tvf.rgb_to_grayscale(image, num_output_channels=3))
    luma = np.asarray(image).astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(np.asarray(gray).astype(float) - luma[..., None]).max() <= 0.51
    assert only(image.convert("L"), grayscale_prob=1.0).mode == "L"


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_solarization_is_torchvisions(threshold, mode):
    image = photo(40, 40).convert(mode)
    ours = only(image, solarize_prob=1.0, solarize_threshold=threshold)
    theirs = tvf.solarize(to_uint8_tensor(image), min(threshold, 255))
    assert torch.equal(to_uint8_tensor(ours), theirs) or (threshold == 256 and same(ours, image))


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.3, 2.0])
def test_blur_is_gaussian_with_sigma_as_its_standard_deviation(sigma):
    """Pillow's three box blurs are nearer to torchvision's formula for this sigma than for others."""
    image = photo(64, 64)
    ours = only(image, blur_prob=1.0, blur_sigma=(sigma, sigma))
    assert same(ours, image.filter(ImageFilter.GaussianBlur(radius=sigma)))
    pixels, blurred = to_uint8_tensor(image), to_uint8_tensor(ours).int()
    formula = [tvf.gaussian_blur(pixels, [23, 23], [factor * sigma] * 2).int() for factor in (0.75, 1, 1.25)]
    smaller, equal, larger = ((blurred - theirs).abs().float().mean() for theirs in formula)
    assert equal < min(smaller, larger, 1.3)


@pytest.mark.parametrize("grayscale_prob", [0.0, 1.0])
@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_operations_come_in_byols_order(grayscale_prob, hflip):
    """Written down once more with torchvision's functions and the same factors."""
    image, adjust = photo(), (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    always = {"color_jitter_prob": 1.0, "grayscale_prob": grayscale_prob, "blur_prob": 1.0, "solarize_prob": 1.0}
    (view,) = build_views(Augmentation(**{**BYOL, **always}, hflip=hflip, interpolation="bilinear"), 1)
    for seed in range(10):
        rng, boxes = Recorded(seed), Recorded(seed)
        ours = view(image, rng)
        crop = build_views(Augmentation(image_resize=32, hflip=0.0, interpolation="bilinear"), 1)[0]
        expected = picture(crop(image, boxes))
        expected = tvf.hflip(expected) if hflip else expected
        *jitter, sigma = rng.factors[len(boxes.factors) :]
        for which, factor in zip(rng.order, jitter, strict=True):
            expected = adjust[which](expected, factor)
        expected = tvf.rgb_to_grayscale(expected, 3) if grayscale_prob else expected
        expected = expected.filter(ImageFilter.GaussianBlur(sigma))
        assert 0.1 <= sigma <= 2
        assert same(ours, tvf.solarize(expected, 128))


@pytest.mark.parametrize(
    ("keys", "probs"),
    [({"color_jitter": (0.4, 0.4, 0.2, 0.1), "color_jitter_prob": 0.8}, (0.8, 0.8)),
     ({"grayscale_prob": 0.2}, (0.2, 0.2)), ({"blur_prob": (1.0, 0.1), "blur_sigma": (1.0, 2.0)}, (1.0, 0.1)),
     ({"solarize_prob": (0.0, 0.2)}, (0.0, 0.2))],
    ids=["jitter", "grayscale", "blur", "solarize"],
)  # fmt: skip
def test_operations_are_as_likely_in_each_view_as_asked(keys, probs):
    image = photo(16, 16)
    for view, prob in zip(build_views(Augmentation(**WHOLE, **keys), 2), probs, strict=True):
        changed = np.mean([not same(view(image, random.Random(seed)), image) for seed in range(2000)])
        assert abs(changed - prob) < (0.035 if 0 < prob < 1 else 1e-9)


@pytest.mark.parametrize("key", ["color_jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob"])
def test_a_list_has_one_number_for_each_view(key):
    with pytest.raises(UsageError, match=rf"{key} has 2 values, but the task makes 3 views") as caught:
        build_views(Augmentation(**{key: (0.5, 0.5)}), 3)
    assert "list of 3" in caught.value.help
    assert len(build_views(Augmentation(**{key: (0.5, 0.5)}), 2)) == 2


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5-inc1", "autoaug", "3a", "trivialaugwide", "augmix-m5"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_transforms_travel_to_worker_processes(policy, in_channels):
    aug = Augmentation(**BYOL, auto_augment=policy, mean=(0.5,), std=(0.5,))
    for view in build_views(aug, 2, in_channels):
        copy = pickle.loads(pickle.dumps(view))
        assert all(same(copy(photo(), random.Random(i)), view(photo(), random.Random(i))) for i in range(5))
    evaluation = build_eval_transform(aug, in_channels=in_channels)
    assert same(pickle.loads(pickle.dumps(evaluation))(photo()), evaluation(photo()))


def batches(num_views: int, **options):
    digits = build_splits(Dataset(dataset="digits", num_samples=40)).train
    plan = BatchPlan(40, 4, options.pop("world_size", 1), options.pop("accumulation", 2), seed=3)
    where = {"seed": 3, "rank": 0, "start_step": 0, "total_steps": 9, "num_workers": 0, **options}

    return digits, list(build_train_loader(digits, build_views(EQUAL, num_views), plan, **where))


def test_a_view_is_a_function_of_seed_epoch_sample_and_view():
    """So one alone is what it is beside others, with any number of workers, from any start, on any rank."""
    digits, three = batches(3)
    names = ("sample", "view 1", "view 2")
    (transform,) = build_views(EQUAL, 1)
    for batch in three:
        for row, index in enumerate(batch.indices.tolist()):
            for view, name in zip(batch.views, names, strict=True):
                expected = transform(digits.load(index), stream(name, 3, batch.epoch, index))
                assert torch.equal(view[row], to_uint8_tensor(expected))
    for other in (batches(1)[1], batches(2)[1], batches(3, num_workers=2)[1]):
        assert all(map(torch.equal, theirs.views, ours.views) for ours, theirs in zip(three, other, strict=True))
    assert all(torch.equal(a.views[2], b.views[2]) for a, b in zip(three[8:], batches(3, start_step=4)[1], strict=True))
    ranks = [batches(3, world_size=2, accumulation=1, rank=rank)[1] for rank in (0, 1)]
    spread = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert all(torch.equal(a.views[1], b.views[1]) for a, b in zip(three, spread, strict=True))


def test_views_of_a_sample_differ():
    for batch in batches(2)[1]:
        first, second = batch.views
        assert not any(map(torch.equal, first, second))
