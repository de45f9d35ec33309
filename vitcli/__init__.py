"""vitcli: the shortest honest way from a folder of images to a fast vision transformer that runs where it is needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitcli.commands.export import export
    from vitcli.commands.train import TrainResult, train
    from vitcli.commands.validate import validate
    from vitcli.deploy.artifact import open_artifact
    from vitcli.deploy.classify import Classifier
    from vitcli.deploy.plan import ExportPlan
    from vitcli.layers.reparam import reparameterize
    from vitcli.models.registry import create_model, list_models
    from vitcli.recipe.load import Recipe, load_recipe
    from vitcli.recipe.plugins import use_plugin
    from vitcli.weights.load import load_weights

__version__ = "0.1.0"

_PUBLIC = {
    "Classifier": "vitcli.deploy.classify",
    "ExportPlan": "vitcli.deploy.plan",
    "Recipe": "vitcli.recipe.load",
    "TrainResult": "vitcli.commands.train",
    "create_model": "vitcli.models.registry",
    "export": "vitcli.commands.export",
    "list_models": "vitcli.models.registry",
    "load_recipe": "vitcli.recipe.load",
    "load_weights": "vitcli.weights.load",
    "open_artifact": "vitcli.deploy.artifact",
    "reparameterize": "vitcli.layers.reparam",
    "train": "vitcli.commands.train",
    "use_plugin": "vitcli.recipe.plugins",
    "validate": "vitcli.commands.validate",
}

__all__ = [
    "Classifier", "ExportPlan", "Recipe", "TrainResult", "create_model", "export", "list_models", "load_recipe",
    "load_weights", "open_artifact", "reparameterize", "train", "use_plugin", "validate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `import vitcli`, `vitcli --help` and recipe checks must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vitcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
