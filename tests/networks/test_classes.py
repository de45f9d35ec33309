"""Classes are matched by name; the order is assumed only where one side has no names that could match, and is noted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from vitcli.errors import DataError, WeightsError
from vitcli.networks.classes import numbered
from vitcli.networks.opened import Opened
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import Dataset
from vitcli.weights.read import Weights


def data(root: Path, *names: str, split: str = "val", **keys) -> Dataset:
    """One image in each of the folders `names`."""
    for name in names:
        (root / split / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / split / name / "0.png")
    return Dataset(data_dir=root, **keys)


def targets(images) -> list[int]:
    return np.asarray(images.targets).tolist()


@pytest.mark.parametrize("named_by", ["data", "description"])
def test_names_decide_and_not_the_order(named_by, tmp_path: Path):
    images = numbered(data(tmp_path, "bee", "ant"), ["wasp", "bee", "ant"], named_by)
    assert targets(images) == [2, 1]  # ant, bee
    assert images.class_names == ["wasp", "bee", "ant"]
    assert images.notes == ["1 of 3 classes have no validation images: 'wasp'"]


def test_the_names_of_a_run_are_binding(tmp_path: Path):
    with pytest.raises(DataError, match="2 validation classes are not among the 2"):
        numbered(data(tmp_path, "bee", "ant"), ["an ant", "a bee"], "data")


def test_descriptions_are_taken_in_sorted_order_with_a_note(tmp_path: Path):
    images = numbered(data(tmp_path, "n01440764", "n01443537"), ["tench, Tinca tinca", "goldfish"], "description")
    assert targets(images) == [0, 1]
    assert images.class_names == ["tench, Tinca tinca", "goldfish"]
    assert ["sorted order" in note for note in images.notes] == [True]


def test_an_equal_count_is_not_enough_if_a_name_matches(tmp_path: Path):
    """`ant` is an output of the network: the order of the folders would give it the index of `bee`."""
    with pytest.raises(DataError, match="cat"):
        numbered(data(tmp_path, "ant", "cat"), ["bee", "ant"], "description")
    with pytest.raises(DataError, match="not among the 3"):
        numbered(data(tmp_path / "b", "n1", "n2"), ["tench", "goldfish", "shark"], "description")


def test_outputs_without_names_need_an_equal_count(tmp_path: Path):
    images = numbered(data(tmp_path, "bee", "ant"), ["class 0", "class 1"], "number")
    assert targets(images) == [0, 1]
    assert ["no names" in note for note in images.notes] == [True]
    with pytest.raises(WeightsError, match="3 classes, the data has 2 classes"):
        numbered(data(tmp_path / "b", "bee", "ant"), ["class 0", "class 1", "class 2"], "number")


def test_numbers_in_names_make_two_orders(tmp_path: Path):
    """Users of timm and torch hub number the folders 1 to 12 by value."""
    section = data(tmp_path, *map(str, range(1, 13)))
    outputs = [f"class {number}" for number in range(12)]
    images = numbered(section, outputs, "number")
    assert targets(images) == [*range(12)]
    assert [images.name(index).split("/")[0] for index in range(3)] == ["1", "10", "11"]
    assert ["'10' before '2'; --class_order natural" in note for note in images.notes] == [True]
    natural = numbered(section.model_copy(update={"class_order": "natural"}), outputs, "number")
    by_name = {natural.name(index).split("/")[0]: target for index, target in enumerate(targets(natural))}
    assert by_name == {str(number): number - 1 for number in range(1, 13)}
    assert ["in natural order" in note for note in natural.notes] == [True]


def test_a_split_without_all_classes_is_numbered_by_the_training_split(tmp_path: Path):
    data(tmp_path, "ant", "bee", "cat", split="train")
    images = numbered(data(tmp_path, "cat", "ant"), ["class 0", "class 1", "class 2"], "number")
    assert targets(images) == [0, 2]
    assert "1 of 3 classes have no validation images: 'bee'" in images.notes


def test_folders_that_are_called_class_and_a_number_are_names(tmp_path: Path):
    """Sorted, `class 10` would come before `class 2`."""
    names = [f"class {number}" for number in range(12)]
    section = data(tmp_path, *names)
    for named_by in ("data", "description"):
        images = numbered(section, names, named_by)
        assert targets(images) == [int(images.name(index).split("/")[0].split()[1]) for index in range(12)]


def test_the_kind_of_names():
    def kind(**meta: object) -> str:
        return Opened(nn.Identity(), load_recipe(), [], Weights({}, meta), []).named_by

    assert kind(class_names=["a"], recipe={}) == "data"
    assert kind(class_names=["tench, Tinca tinca"], config={}) == "description"
    assert kind(recipe={}, class_names=None) == "number"
