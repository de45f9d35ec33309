"""What several commands share: options, and the import of PyTorch."""

from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vitcli.errors import UsageError
from vitcli.recipe.plugins import use_plugin

#: for commands that pass unknown options on to the recipe check, which reports all mistakes at once
COLLECT_UNKNOWN = {"allow_extra_args": True, "ignore_unknown_options": True}


def _use_plugins(files: list[Path] | None) -> None:
    for file in files or ():
        use_plugin(file)


ConfigOption = Annotated[
    str | None, Option("-c", "--config", metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")
]
PluginOption = Annotated[
    list[Path] | None,
    Option(
        "--plugin", metavar="FILE", callback=_use_plugins, help="Python file with models or other parts of your own."
    ),
]
JsonOption = Annotated[Path | None, Option("--json", metavar="FILE", help="Also write the result to this file.")]
#: what `validate` and `predict` accept
ANY_SOURCE = "An exported folder, a run, a checkpoint, a file of weights, or an address."
SourceArgument = Annotated[
    str, Argument(metavar="SOURCE", help="A run, a checkpoint, a file of weights, or an address.")
]


def loading() -> AbstractContextManager[object]:
    """Say that PyTorch is loaded while the block imports it."""
    from vitcli.terminal import phase  # takes 0.1 s, which a refusal does not need

    return phase("loading PyTorch")


def unknown_options(words: list[str]) -> dict[str, str]:
    """`--key value` pairs that no option took; any other word is an argument too many."""
    found: dict[str, str] = {}
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}", help="an option begins with --, and takes one value")
        name, _, value = word[2:].partition("=")
        if not value and rest and not rest[0].startswith("--"):
            value = rest.popleft()
        found[name] = value
    return found
