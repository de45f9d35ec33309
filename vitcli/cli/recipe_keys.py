"""Gives a command one option for every key of a recipe, or for some of them, generated from the schema."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Option

from vitcli.cli.options import ANY_SOURCE, PluginOption, unknown_options
from vitcli.recipe.describe import help_of, metavar
from vitcli.recipe.load import load_recipe
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

    return _shown_as(command, run, own.replace(parameters=parameters))


def with_keys(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each of these recipe keys, and in `recipe` what the user says with them."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        parameters = [p for p in own.parameters.values() if p.name != "recipe"]
        for name in names:
            option = Option(f"--{name}", metavar=metavar(name), help=_markdown(help_of(name)))
            shape: dict[str, Any] = {"default": None, "annotation": Annotated[str | None, option]}
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, **shape))

        def run(**arguments: Any) -> None:
            given = {name: text for name in names if (text := arguments.pop(name)) is not None}
            command(**arguments, recipe=load_recipe(overrides=given))

        return _shown_as(command, run, own.replace(parameters=parameters))

    return decorate


def _shown_as(
    command: Callable[..., None], run: Callable[..., None], signature: inspect.Signature
) -> Callable[..., None]:
    """`run` under the name and help of `command`, with the options of `signature`."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run


def _help(name: str) -> str:
    value = default(name)
    text = f"{help_of(name)} [default: {yaml_value(list(value) if isinstance(value, tuple) else value)}]"
    return _markdown(text.replace("null]", "none]"))


def _markdown(text: str) -> str:
    """`text`, such that the help, which is Markdown, shows its angle brackets."""
    return text.replace("<", "\\<")


def _first_word(words: list[str]) -> tuple[str | None, list[str]]:
    """The first of `words` that is neither an unknown option nor the value of one, and the others."""
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if not word.startswith("-") and (not before.startswith("--") or "=" in before):
            return word, words[:index] + words[index + 1 :]
    return None, words
