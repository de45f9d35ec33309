"""Sources whose images have any number of classes: numbering, choosing, strata, held-out images."""

import numpy as np
import pytest

from vitcli.data.datasets import limited
from vitcli.data.holdout import part_of
from vitcli.data.source import ArrayImages
from vitcli.recipe.schema import Dataset

NAMES = ["common", "middle", "rare", "absent"]


def source(num_images: int = 400, seed: int = 0) -> ArrayImages:
    """Random labels with shares of 0.6, 0.3, 0.03 and 0."""
    targets = np.random.default_rng(seed).random((num_images, 4)) < [0.6, 0.3, 0.03, 0]
    return ArrayImages(np.zeros((num_images, 2, 2), np.uint8), targets, NAMES, "zeros")


def test_counts_labels_and_numbering():
    images = source()
    assert images.class_counts() == dict(zip(NAMES, images.targets.sum(0).tolist(), strict=True))
    other = images.relabel(["rare", "new", "middle", "common"])
    assert other.class_names == ["rare", "new", "middle", "common"]
    for index in range(len(images)):
        assert sorted(images.labels(index)) == sorted(other.labels(index))
    assert other.class_counts() == {"new": 0} | {name: images.class_counts()[name] for name in NAMES[:3]}
    some = images.select(np.array([5, 3]))
    assert [some.labels(0), some.labels(1)] == [images.labels(5), images.labels(3)]


def test_an_image_is_in_the_stratum_of_its_rarest_class():
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    images = ArrayImages(np.zeros((6, 2, 2), np.uint8), targets, ["a", "b", "c"], "zeros")  # counts 5, 3, 2
    assert images.strata().tolist() == [1, 0, 3, 2, 2, 1]


def test_each_fold_has_its_share_of_each_class():
    pool, seen = source(), np.zeros(4, int)
    names: list[str] = []
    for number in range(1, 6):
        val = part_of(pool, Dataset(val_fold=f"{number}/5"), "val")
        counts = np.array([*val.class_counts().values()])
        assert np.abs(counts[:3] - np.array([*pool.class_counts().values()])[:3] / 5).max() <= 8
        assert counts[2] >= 1, "every fold has the rare class"
        names += [val.name(index) for index in range(len(val))]
        seen += counts
    assert sorted(names) == sorted(pool.name(index) for index in range(len(pool)))
    assert seen.tolist() == [*pool.class_counts().values()]
    train = part_of(pool, Dataset(val_ratio=0.2), "train")
    assert train.notes == []


@pytest.mark.parametrize("wanted", [3, 20])
def test_at_least_so_many_images_of_each_class(wanted: int):
    images = source()
    chosen = limited(images, Dataset(num_samples_per_class=wanted), seed=1)
    for name, count in images.class_counts().items():
        assert chosen.class_counts()[name] >= min(wanted, count)
    fewer = limited(images, Dataset(num_samples_per_class=wanted - 1), seed=1)
    names = {chosen.name(index) for index in range(len(chosen))}
    assert {fewer.name(index) for index in range(len(fewer))} < names
    assert any("were chosen for other classes too" in note for note in chosen.notes)


def test_a_share_of_each_stratum():
    images = source()
    chosen = limited(images, Dataset(num_samples_ratio=0.25), seed=1)
    strata = np.bincount(images.strata())
    found = np.bincount(chosen.strata(), minlength=5)
    assert len(chosen) == sum(max(1, round(0.25 * count)) for count in strata if count)
    assert found.sum() == len(chosen)
    assert chosen.class_counts()["rare"] >= 1
