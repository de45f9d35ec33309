"""`class_weights: auto` is scikit-learn's "balanced"; a list must fit the classes."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from vitcli.data.class_weights import settled_weights, weight_rows
from vitcli.data.source import ArrayImages
from vitcli.errors import UsageError

TARGETS = np.array([0] * 7 + [1] * 2 + [2] * 40 + [3])


def images(targets: np.ndarray, num_classes: int) -> ArrayImages:
    names = [f"class {number}" for number in range(num_classes)]
    return ArrayImages(np.zeros((len(targets), 1, 1), dtype=np.uint8), targets, names, "images")


def test_auto_is_scikit_learns_balanced():
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=TARGETS)
    ours = settled_weights(images(TARGETS, 4), "auto")
    assert ours == pytest.approx(theirs.tolist())
    assert np.mean([ours[target] for target in TARGETS]) == pytest.approx(1)


def test_a_class_without_images_has_no_weight_and_does_not_count():
    assert settled_weights(images(TARGETS, 5), "auto") == (*settled_weights(images(TARGETS, 4), "auto"), 0.0)


def test_a_list_must_have_one_number_for_each_class():
    with pytest.raises(UsageError, match="is a list of 2, but the data has 4 classes: 'class 0', 'class 1', 'class 2'"):
        settled_weights(images(TARGETS, 4), (1.0, 2.0))
    with pytest.raises(UsageError, match="'class 9', …"):
        settled_weights(images(TARGETS, 30), (1.0,))
    assert settled_weights(images(TARGETS, 5), (1.0, 2.0, 3.0, 4.0, 0.0)) == (1.0, 2.0, 3.0, 4.0, 0.0)
    with pytest.raises(UsageError, match="0 for classes that have training images: 'class 1'\n"):
        settled_weights(images(TARGETS, 5), (1.0, 0.0, 3.0, 4.0, 0.0))


def test_the_table_has_both_ends():
    source = images(np.repeat(np.arange(20), np.arange(1, 21)), 20)
    rows = weight_rows(source, settled_weights(source, "auto"))
    assert [name for name, _ in rows] == ["class 0", "class 1", "class 2", "…", "class 17", "class 18", "class 19"]
    assert rows[0][1] == "10.5  (1 image)"  # 210 / (20 * 1)
    assert rows[3][1] == "14 classes between these"
