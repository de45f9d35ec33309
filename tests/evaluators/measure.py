"""All evaluators on the digits, on as many ranks as torchrun starts: [torchrun …] measure.py OUT; writes OUT.<rank>"""

import json
import sys
from pathlib import Path

import torch

from vitcli import catalog
from vitcli.data.datasets import build_splits
from vitcli.distributed import World, joined
from vitcli.engine.precision import build_autocast
from vitcli.evaluators.evaluator import Setting
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe

Numbers = dict[str, dict[str, dict[str, float]]]


def measure(world: World) -> Numbers:
    """Number of validation images -> evaluator -> its numbers."""
    recipe = load_recipe(
        dataset="digits", image_resize=32, batch_size=50, num_samples=301, num_parallel_workers=0, probe_epochs=10
    )
    splits = build_splits(recipe.dataset)
    torch.manual_seed(0)
    network = create_model("vit_ti_patch16", num_classes=10, img_size=32, patch_size=8, depth=2)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    numbers: Numbers = {}
    for num_val in (151, 1):
        setting = Setting(recipe, splits.val.subset(num_val), world, build_autocast(recipe, world.device), splits.train)
        found = {name: catalog.load("evaluators", name)(setting)(network) for name in catalog.EVALUATORS}
        numbers[str(num_val)] = found
    return numbers


if __name__ == "__main__":
    with joined("cpu", distributed=True) as world:
        Path(f"{sys.argv[1]}.{world.rank}").write_text(json.dumps(measure(world)))
