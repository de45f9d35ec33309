"""Every key a recipe may hold: its type, range, unit, default and one sentence of help. The names are MindCV's.

In a file the keys are flat; in code they are grouped: `recipe.dataset.batch_size`, `recipe.optimizer.weight_decay`.
A section is its keys and the rules between them. Nothing here imports torch, so that a
recipe is checked in a few milliseconds.
"""

from typing import Any

from vitcli.recipe.schema.augmentation import GRAY, Augmentation
from vitcli.recipe.schema.dataset import Dataset
from vitcli.recipe.schema.key import Section, key
from vitcli.recipe.schema.learning import Evaluation, Learning, Loss
from vitcli.recipe.schema.model import Model
from vitcli.recipe.schema.optimizer import Optimizer
from vitcli.recipe.schema.scheduler import Scheduler
from vitcli.recipe.schema.system import Checkpoint, System

__all__ = [
    "GRAY",
    "OWN_KEYS", "SECTIONS", "SECTION_OF", "Augmentation", "Checkpoint", "Dataset", "Evaluation", "Learning", "Loss",
    "Model", "Optimizer", "Scheduler", "Section", "System", "default", "extra", "key",
]  # fmt: skip

SECTIONS: dict[str, type[Section]] = {
    "system": System,
    "dataset": Dataset,
    "augmentation": Augmentation,
    "model": Model,
    "learning": Learning,
    "loss": Loss,
    "evaluation": Evaluation,
    "scheduler": Scheduler,
    "optimizer": Optimizer,
    "checkpoint": Checkpoint,
}

#: flat key -> name of its section
SECTION_OF: dict[str, str] = {name: section for section, fields in SECTIONS.items() for name in fields.model_fields}


def extra(name: str) -> dict[str, Any]:
    """What `key` noted of the key `name`: {"free": bool, "registry": str | None, "own": bool}."""
    return SECTIONS[SECTION_OF[name]].noted(name)


def default(name: str) -> Any:
    return SECTIONS[SECTION_OF[name]].model_fields[name].default


#: the keys that only some models have
OWN_KEYS: tuple[str, ...] = tuple(name for name in SECTION_OF if extra(name)["own"])
