"""The run's folder: when it is written, what is kept, and what is continued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Finding, Section, key

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Checkpoint(Section):
    run_dir: Path | None = key(None, "Folder of the run. Default: runs/<recipe>-<time>-<hex>.", free=True)
    resume: str | None = key(
        None, "Continue a run: its folder, or auto for the newest checkpoint in run_dir.", free=True
    )
    ckpt_save_interval: int = key(1, "Epochs between two checkpoints. The last epoch is always saved.", ge=1, free=True)
    ckpt_save_steps: int | None = key(None, "Steps between additional checkpoints. Default: none.", ge=1, free=True)
    ckpt_save_policy: Literal["latest_k", "top_k"] | None = key(
        "latest_k", "Which checkpoints to keep besides the best and the last. null: all.", free=True
    )
    keep_checkpoint_max: int = key(10, "Number of checkpoints that ckpt_save_policy keeps.", ge=1, free=True)

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        if self.ckpt_save_policy == "top_k" and not recipe.system.val_while_train:
            help = "set `val_while_train: true`, or `ckpt_save_policy: latest_k`"
            yield "ckpt_save_policy", "top_k ranks checkpoints by a metric, but nothing is evaluated", help
        if self.resume == "auto" and self.run_dir is None:
            yield "resume", "`resume: auto` searches run_dir, which is not given", "add --run_dir DIR, or --resume RUN"
