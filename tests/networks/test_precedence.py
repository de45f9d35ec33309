"""Which value is used: from the command line, the weights, the recipe file, or the shapes of the tensors."""

from pathlib import Path

import pytest
import torch

from tests.models.vit_oracles import timm_vit, torchvision_vit
from vitcli.errors import WeightsError
from vitcli.networks.build import build_network
from vitcli.networks.precedence import settled
from vitcli.recipe.library import shipped_recipes
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.read import Weights

#: of a run at 32 px, with the keys of a future version among its own
RUN = {
    "model": "vit_ti_patch16", "patch_size": 4, "image_resize": 32, "crop_pct": 0.8, "mean": [0.1, 0.2, 0.3],
    "quantize": "none", "dataset": "digits", "batch_size": 7, "amp": "bf16", "teacher_of_the_future": "large",
}  # fmt: skip


def of_run() -> Weights:
    return Weights({}, {"recipe": RUN}, "RUN")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("image_resize: 64\ncrop_pct: 0.9\nbatch_size: 5\nseed: 3\n")
    return path


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_the_network_of_a_checkpoint_is_built_again(name: str):
    """As `vitcli validate --ckpt_path RUN` does, with no other recipe."""
    recipe = load_recipe(name)
    again, notes = settled(load_recipe(ckpt_path="RUN"), Weights({}, {"recipe": recipe.flat()}))
    assert notes == []
    with torch.device("meta"):
        first, second = build_network(recipe, 7), build_network(again, 7)
    assert [again.get(key) for key in OWN_KEYS] == [recipe.get(key) for key in OWN_KEYS]
    shapes = {key: value.shape for key, value in first.state_dict().items()}
    assert {key: value.shape for key, value in second.state_dict().items()} == shapes


def values(recipe: Recipe, *names: str) -> list:
    flat = recipe.flat()
    return [flat[name] for name in names]


def test_a_run_is_stronger_than_a_file_and_weaker_than_the_command_line(file: Path):
    recipe, notes = settled(load_recipe(file, {"crop_pct": "1.0"}), of_run())
    assert values(recipe, "model", "patch_size", "image_resize", "crop_pct") == ["vit_ti_patch16", 4, 32, 1.0]
    assert values(recipe, "batch_size", "dataset", "seed", "amp") == [5, "imagefolder", 3, "off"]  # not of the network
    assert notes == ["`image_resize`: the checkpoint was trained with 32, the recipe says 64; using 32"]


def test_without_a_file_a_run_supplies_its_data_too():
    recipe, notes = settled(load_recipe(None, {"batch_size": "9"}), of_run())
    assert values(recipe, "dataset", "batch_size", "mean", "amp") == ["digits", 9, [0.1, 0.2, 0.3], "auto"]
    assert notes == []


def test_tensors_are_weaker_than_a_file(file: Path):
    """torchvision's file states no size; that it is a ViT for 32 px shows in its tensors."""
    tensors = torchvision_vit().state_dict()
    weights = Weights(tensors, {"options": {"num_heads": 2}}, "tv.safetensors")
    recipe, notes = settled(load_recipe(), weights)
    assert values(recipe, "embed_dim", "depth", "num_heads", "image_resize") == [32, 2, 2, 32]
    assert values(recipe, "interpolation", "crop_pct") == ["bilinear", 0.875]
    assert notes == ["preprocessing of the weights: interpolation bilinear"]
    mine, notes = settled(load_recipe(file), weights)
    assert values(mine, "embed_dim", "image_resize", "crop_pct") == [32, 64, 0.875]
    assert notes[0] == "`crop_pct`: the checkpoint was trained with 0.875, the recipe says 0.9; using 0.875"
    with pytest.raises(WeightsError, match="number of attention heads"):
        settled(load_recipe(), Weights(tensors))


def test_a_model_that_the_user_names_is_not_changed():
    weights = Weights(timm_vit().state_dict())
    assert values(settled(load_recipe(model="fastvit_t12"), weights)[0], "model", "embed_dim") == ["fastvit_t12", None]
    with pytest.raises(WeightsError, match="fits no model"):
        settled(load_recipe(), Weights({"a": torch.zeros(2)}))


def test_a_stated_value_that_is_the_default_is_not_replaced_by_what_the_tensors_show():
    """FastViT's published crop_pct is 0.9; weights that state 0.875, the default of the key, keep it."""
    with torch.device("meta"):
        tensors = build_network(load_recipe(model="fastvit_t8"), 3).state_dict()
    stated = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 0.875}
    assert settled(load_recipe(), Weights(tensors, {"preprocessing": stated}))[0].augmentation.crop_pct == 0.875
    assert settled(load_recipe(), Weights(tensors))[0].augmentation.crop_pct == 0.9
