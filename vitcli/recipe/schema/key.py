"""What a recipe key and a section of keys are: a type, limits, a default, one sentence of help, and checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]
#: one for all views of an image, or one for each
PerView = Probability | tuple[Probability, ...]
Name = Annotated[str, StringConstraints(min_length=1)]
#: a path or an address
PathOrAddress = Annotated[Name, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]

#: the key to point at, what is wrong, what to do
Finding = tuple[str, str, str | None]


def key(
    default: Any, help: str, *, free: bool = False, registry: str | None = None, own: bool = False, **limits: Any
) -> Any:
    """A recipe key.

    Args:
        free: the value may change when a run is resumed.
        registry: the value, or each of a list of values, must be a name of this kind in the catalog.
        own: see `option`.
    """
    noted = {"free": free, "registry": registry, "own": own}
    return Field(default, description=help, json_schema_extra=noted, **limits)


def option(help: str, *, registry: str | None = None, **limits: Any) -> Any:
    """An argument of some models only, with its name in their `create`; None stands for the model's own default."""
    return key(None, help, registry=registry, own=True, **limits)


class Section(BaseModel):
    """Keys that belong together, and the rules that single values cannot show."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, allow_inf_nan=False, protected_namespaces=(), validate_default=False
    )

    @classmethod
    def noted(cls, name: str) -> dict[str, Any]:
        """What `key` noted of the key `name`: {"free": bool, "registry": str | None, "own": bool}."""
        noted = cls.model_fields[name].json_schema_extra
        assert isinstance(noted, dict)
        return noted

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        """Contradictions that stop the run."""
        yield from ()

    def notes(self, recipe: Recipe) -> Iterator[str]:
        """What is allowed but has no effect, one sentence each."""
        yield from ()


def without_effect(recipe: Recipe, *names: str, why: str) -> Iterator[str]:
    """The sentence "`a`, `b` have no effect ..." for those of the keys that are set, if any is."""
    if given := recipe.sets(*names):
        yield f"{', '.join(f'`{name}`' for name in given)} {'has' if len(given) == 1 else 'have'} no effect{why}"
