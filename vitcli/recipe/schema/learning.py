"""What is learned."""

from __future__ import annotations

from vitcli.recipe.schema.key import Name, Section, key


class Learning(Section):
    task: Name = key("classification", "What is learned.", registry="tasks")
