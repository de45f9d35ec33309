"""A trained network with or without a classifier, and checkpoints of other versions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.deploy.conftest import stir
from vitcli.cli import main
from vitcli.errors import DataError, WeightsError
from vitcli.models.registry import create_model
from vitcli.networks.opened import open_features, open_model, open_network
from vitcli.recipe.load import load_recipe
from vitcli.weights.checkpoint_folders import FORMAT
from vitcli.weights.manifest import write_manifest

OPTIONS = {"fastvit_t8": {}, "vit_ti_patch16": {"patch_size": 8, "depth": 2}}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def checkpoint(folder: Path, name: str, num_classes: int, **state: object) -> nn.Module:
    """Write a checkpoint as a run does, and return its network."""
    torch.manual_seed(0)
    options = OPTIONS[name]
    network = stir(create_model(name, num_classes=num_classes, img_size=32, **options))
    recipe = load_recipe(model=name, image_resize=32, **options).flat()
    names = [f"c{number}" for number in range(num_classes)] or None
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps({"recipe": recipe, "class_names": names, **state}))
    write_manifest(folder)
    return network


@pytest.mark.parametrize("name", OPTIONS)
def test_features_are_the_networks_own(name: str, tmp_path: Path):
    """With a classifier they are what it is applied to; without one they are what the network returns."""
    classifier, headless = (checkpoint(tmp_path / str(n), name, n) for n in (5, 0))
    with torch.no_grad():
        opened = open_features(tmp_path / "5")
        features = opened.model(IMAGES)
        last = classifier.head.fc if name == "fastvit_t8" else classifier.head
        torch.testing.assert_close(last(features), classifier(IMAGES), rtol=0, atol=1e-6)
        assert features.shape == (2, last.in_features)
        assert opened.class_names == []
        for opening in (open_features, open_network):
            assert torch.equal(opening(tmp_path / "0").model(IMAGES), headless(IMAGES))
        assert torch.equal(open_model(tmp_path / "5").model(IMAGES), classifier(IMAGES))


def test_commands_that_need_a_classifier_say_so(tmp_path: Path, capsys):
    checkpoint(tmp_path / "run", "vit_ti_patch16", 0)
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    with pytest.raises(WeightsError, match="has no classifier"):
        open_model(run)
    for words in (
        ["predict", run, str(tmp_path)],
        ["export", run, "--to", "fused", "-o", f"{out}.safetensors"],
        ["validate", run, "--dataset", "digits"],
    ):
        if words[0] == "predict":
            from PIL import Image

            Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr().err
        assert end.value.code == 2, printed
        assert "has no classifier" in printed
        assert "fine-tune it first" in printed


def test_checkpoints_of_other_versions(tmp_path: Path):
    """This version and older ones are read, whatever else they hold; a newer format is refused."""
    for number, state in enumerate([{}, {"format": FORMAT}, {"format": FORMAT, "of_the_future": [1]}]):
        checkpoint(tmp_path / str(number), "vit_ti_patch16", 3, **state)
        assert open_model(tmp_path / str(number)).class_names == ["c0", "c1", "c2"]
    checkpoint(tmp_path / "new", "vit_ti_patch16", 3, format=FORMAT + 1)
    with pytest.raises(DataError, match="written by a newer vitcli") as error:
        open_model(tmp_path / "new")
    assert "upgrade" in (error.value.help or "")
