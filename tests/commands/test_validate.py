"""A checkpoint knows how its network was built, whatever recipe made it."""

import pytest
import torch

from vitcli.commands.validate import _adopt
from vitcli.networks.build import build_network
from vitcli.recipe.library import shipped_recipes
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.read import Weights


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_the_network_of_a_checkpoint_is_built_again(name: str):
    """As `vitcli validate --ckpt_path RUN` does, with no other recipe."""
    recipe = load_recipe(name)
    again, notes = _adopt(load_recipe(ckpt_path="RUN"), Weights({}, {"recipe": recipe.flat()}))
    assert notes == []
    with torch.device("meta"):
        first, second = build_network(recipe, 7), build_network(again, 7)
    assert [again.get(key) for key in OWN_KEYS] == [recipe.get(key) for key in OWN_KEYS]
    shapes = {key: value.shape for key, value in first.state_dict().items()}
    assert {key: value.shape for key, value in second.state_dict().items()} == shapes
