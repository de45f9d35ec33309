"""Gives a command one option for every key of a recipe, generated from the schema."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Option

from vitcli.cli.options import ANY_SOURCE, PluginOption, unknown_options
from vitcli.recipe.describe import help_of, metavar
from vitcli.recipe.schema import SECTION_OF, SECTIONS, default
from vitcli.recipe.write import yaml_value

#: the words that belong to no option, for a command that accepts one
_Words = Annotated[list[str] | None, Argument(metavar="[SOURCE]", help=ANY_SOURCE)]


def with_recipe_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command(ctx, config, recipe_keys=…, …)` one option for every key of the schema, and `--plugin`.

    A command with a parameter `source` accepts one word that is not an option.
    """
    own = inspect.signature(command)
    parameters = [
        p.replace(annotation=_Words) if p.name == "source" else p
        for p in own.parameters.values()
        if p.name != "recipe_keys"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("plugin", keyword, default=None, annotation=PluginOption))
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            option = Option(
                f"--{name}", metavar=metavar(name), help=_help(name), rich_help_panel=section, show_default=False
            )
            parameters.append(inspect.Parameter(name, keyword, default=None, annotation=Annotated[str | None, option]))

    def run(plugin: Any = None, **arguments: Any) -> None:
        given = {name: text for name in SECTION_OF if (text := arguments.pop(name)) is not None}
        words = [*(arguments.get("source") or ()), *arguments["ctx"].args]
        if "source" in arguments:
            arguments["source"], words = _first_word(words)
        command(**arguments, recipe_keys=given | unknown_options(words))

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _help(name: str) -> str:
    value = default(name)
    text = f"{help_of(name)} [default: {yaml_value(list(value) if isinstance(value, tuple) else value)}]"
    return text.replace("null]", "none]").replace("<", "\\<")  # help is Markdown, which has tags


def _first_word(words: list[str]) -> tuple[str | None, list[str]]:
    """The first of `words` that is neither an unknown option nor the value of one, and the others."""
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if not word.startswith("-") and (not before.startswith("--") or "=" in before):
            return word, words[:index] + words[index + 1 :]
    return None, words
