"""How the network is measured."""

from __future__ import annotations

from vitcli.recipe.schema.key import Name, Section, key


class Evaluation(Section):
    evaluate: tuple[Name, ...] | None = key(
        None, "Evaluators that measure the network. Default: those of the task.", free=True, registry="evaluators"
    )
