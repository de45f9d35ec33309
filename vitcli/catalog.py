"""What exists by name, without importing it (or torch): each row says where the thing lives.

A recipe may use these names; adding a row here is what makes a name known.
"""

import importlib
from typing import Any

TASKS = {
    "classification": "vitcli.tasks.classification:Classification",
}
EVALUATORS = {
    "top1": "vitcli.evaluators.top1:Top1",
    "knn": "vitcli.evaluators.knn:Knn",
    "linear_probe": "vitcli.evaluators.linear_probe:LinearProbe",
    "collapse": "vitcli.evaluators.collapse:Collapse",
}
SOURCES = {
    "imagefolder": "vitcli.data.sources.folder:open_folder",
    "imagenet": "vitcli.data.sources.folder:open_folder",
    "digits": "vitcli.data.sources.digits:open_digits",
    "cifar10": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "cifar100": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "mnist": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "fashion_mnist": "vitcli.data.sources.torchvision_sets:open_torchvision",
    "synthetic": "vitcli.data.sources.synthetic:open_synthetic",
}
TABLES: dict[str, dict[str, str]] = {"tasks": TASKS, "evaluators": EVALUATORS, "sources": SOURCES}


def load(kind: str, name: str) -> Any:
    """The object that the row `name` of the table `kind` stands for."""
    module, _, attribute = TABLES[kind][name].partition(":")
    return getattr(importlib.import_module(module), attribute)
