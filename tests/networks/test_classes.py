"""Classes are matched by name; the order is assumed only where one side has no names that could match, and is noted."""

from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from torch import nn

from vitcli.data.imagenet import as_spelled_by
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


def test_names_decide_and_not_the_order(tmp_path: Path):
    images = numbered(data(tmp_path, "bee", "ant"), ["wasp", "bee", "ant"], "name")
    assert targets(images) == [2, 1]  # ant, bee
    assert images.class_names == ["wasp", "bee", "ant"]
    assert images.notes == ["1 of 3 classes have no validation images: 'wasp'"]


def test_other_names_are_refused_and_never_taken_in_their_order(tmp_path: Path):
    with pytest.raises(DataError, match=r"no class of the data \('ant', 'bee'\) is a class of the network") as error:
        numbered(data(tmp_path, "bee", "ant"), ["an ant", "a bee"], "name")
    assert "--class_names FILE" in error.value.help
    with pytest.raises(DataError, match="cat"):
        numbered(data(tmp_path / "b", "ant", "cat"), ["bee", "ant"], "name")
    with pytest.raises(DataError, match="no class of the data"):
        numbered(data(tmp_path / "c", "n01440764", "n01443537"), ["tench, Tinca tinca", "goldfish"], "name")


LINES = [line.split(" ", 1) for line in Path("vitcli/data/imagenet_1k.txt").read_text().splitlines()]
WORDS = [words for _, words in LINES]


@pytest.mark.parametrize("names", [WORDS, [words.split(",")[0].upper() for words in WORDS], ["?", *WORDS[1:]]])
def test_imagenets_folders_are_found_under_their_words(tmp_path: Path, names: list[str]):
    """Two classes are called crane: their words alone would not tell them apart. A subset (ImageNet-A) is enough."""
    images = numbered(data(tmp_path, "n03126707", "n01443537", "n02012849"), names, "name")
    by_name = {images.name(index).split("/")[0]: target for index, target in enumerate(targets(images))}
    assert by_name == {"n01443537": 1, "n02012849": 134, "n03126707": 517}
    assert images.class_names == names
    assert ["997 of 1000 classes have no validation images" in note for note in images.notes] == [True]


def test_the_synsets_are_timms():
    info = timm.data.ImageNetInfo("imagenet-1k")
    assert [number for number, _ in LINES] == info.label_names()
    assert info.label_descriptions(detailed=False, as_dict=False) == WORDS
    turned = [*WORDS[1:], WORDS[0]]
    for outputs in (turned, WORDS[:-1], [*WORDS, "more"]):
        assert as_spelled_by(["n01440764"], outputs) == outputs
    assert as_spelled_by(["tench"], WORDS) == WORDS


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
    images = numbered(section, names, "name")
    assert targets(images) == [int(images.name(index).split("/")[0].split()[1]) for index in range(12)]


def test_the_kind_of_names():
    def kind(**meta: object) -> str:
        return Opened(nn.Identity(), load_recipe(), [], Weights({}, meta), []).named_by

    assert kind(class_names=["a"], recipe={}) == "name"
    assert kind(class_names=["tench, Tinca tinca"], config={}) == "name"
    assert kind(recipe={}, class_names=None) == "number"
