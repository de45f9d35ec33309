"""What exists by name, without importing it (or torch): each row says where the thing lives.

A recipe may use these names; adding a row here is what makes a name known.
"""

import importlib
from typing import Any

TASKS = {
    "classification": "vitcli.tasks.classification:Classification",
    "byol": "vitcli.tasks.byol:Byol",
}
EVALUATORS = {
    "top1": "vitcli.evaluators.top1:Top1",
}
TABLES: dict[str, dict[str, str]] = {"tasks": TASKS, "evaluators": EVALUATORS}


def load(kind: str, name: str) -> Any:
    """The object that the row `name` of the table `kind` stands for."""
    module, _, attribute = TABLES[kind][name].partition(":")
    return getattr(importlib.import_module(module), attribute)
