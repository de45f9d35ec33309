"""Gives a command one option for every key of a recipe, or for some of them, generated from the schema."""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

from typer import Argument, Exit, Option

from vitcli.cli.options import ANY_SOURCE, PluginOption, unknown_options
from vitcli.errors import UsageError
from vitcli.recipe.describe import help_of, metavar
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import SECTION_OF, default
from vitcli.recipe.write import yaml_value


def _show_all(ctx: Any, wanted: bool) -> None:
    """The callback of `--help_all`: every option, the recipe keys by their sections, and the end of the program."""
    if not wanted:
        return
    parameters = ctx.command.params
    for parameter in parameters:
        if parameter.name in SECTION_OF:
            parameter.hidden, parameter.rich_help_panel = False, SECTION_OF[parameter.name]
            parameter.help = _key_help(parameter.name)
    place = {name: number for number, name in enumerate(SECTION_OF, start=1)}
    parameters.sort(key=lambda parameter: place.get(parameter.name, 0))
    ctx.get_help()
    raise Exit


#: the words that belong to no option, for a command that accepts one or two
_Words = Annotated[list[str] | None, Argument(metavar="[SOURCE] [SOURCE]", help=f"{ANY_SOURCE} Two are compared.")]
_HelpAll = Annotated[
    bool,
    Option("--help_all", is_eager=True, callback=_show_all, help=f"Show all {len(SECTION_OF)} recipe keys and exit."),
]


#: what most trainings set; `--help` shows these keys, `--help_all` shows all
TRAIN_KEYS = (
    "data_dir", "val_ratio", "model", "ckpt_path", "task", "image_resize", "epoch_size", "batch_size", "lr", "opt",
    "weight_decay", "drop_path_rate", "mixup", "cutmix", "ema", "device", "amp", "compile", "num_parallel_workers",
    "seed", "run_dir", "resume", "dry_run",
)  # fmt: skip
#: what most evaluations set
VALIDATE_KEYS = (
    "data_dir", "val_split", "val_labels", "class_names", "model", "ckpt_path", "use_ema", "task", "evaluate",
    "image_resize", "crop_pct", "crop_mode", "interpolation", "mean", "std", "val_batch_size", "device", "amp",
    "num_parallel_workers",
)  # fmt: skip

#: what changes how training images look
PREVIEW_KEYS = (
    "data_dir", "train_split", "image_resize", "train_crop", "scale", "ratio", "hflip", "vflip", "color_jitter",
    "auto_augment", "re_prob", "mixup", "cutmix", "crop_pct", "crop_mode", "seed",
)  # fmt: skip


def with_recipe_keys(*common: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give `command(ctx, config, recipe_keys=…, …)` one option for every key of the schema, `--plugin`, `--help_all`.

    `--help` shows the keys in `common` only. A command with a parameter `sources` accepts up to two words that are no
    options, or `--ckpt_path` as often. Its own parameters come before keys with the same name.
    """
    return partial(_with_recipe_keys, common=common)


def _with_recipe_keys(command: Callable[..., None], common: tuple[str, ...]) -> Callable[..., None]:
    own = inspect.signature(command)
    parameters = [
        p.replace(annotation=_Words) if p.name == "sources" else p
        for p in own.parameters.values()
        if p.name != "recipe_keys"
    ]
    parameters.append(_parameter("plugin", PluginOption))
    parameters.append(_parameter("help_all", _HelpAll, default=False))
    keys = [name for name in SECTION_OF if name not in own.parameters]
    for name in (*common, *(name for name in keys if name not in common)):
        shown: dict[str, Any] = {"help": _key_help(name, short=True)} if name in common else {"hidden": True}
        option = Option(
            f"--{name}", metavar=metavar(name), rich_help_panel="Common recipe keys", show_default=False, **shown
        )
        kind = list[str] | None if name == "ckpt_path" and "sources" in own.parameters else str | None
        parameters.append(_parameter(name, Annotated[kind, option]))

    def run(plugin: Any = None, help_all: bool = False, **arguments: Any) -> None:
        words = [*(arguments.get("sources") or ()), *arguments["ctx"].args]
        if "sources" in arguments:
            typed, words = _sources(words)
            arguments["sources"] = _one_way(typed, arguments["ckpt_path"] or [])
            arguments["ckpt_path"] = None
        given = {name: text for name in keys if (text := arguments.pop(name)) is not None}
        command(**arguments, recipe_keys=given | unknown_options(words))

    return _shown_as(command, run, own.replace(parameters=parameters))


def with_keys(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each of these recipe keys, and in `recipe` what the user says with them."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        parameters = [p for p in own.parameters.values() if p.name != "recipe"]
        for name in names:
            option = Option(f"--{name}", metavar=metavar(name), help=help_of(name), rich_help_panel="Recipe keys")
            parameters.append(_parameter(name, Annotated[str | None, option]))

        def run(**arguments: Any) -> None:
            given = {name: text for name in names if (text := arguments.pop(name)) is not None}
            command(**arguments, recipe=load_recipe(overrides=given))

        return _shown_as(command, run, own.replace(parameters=parameters))

    return decorate


def _key_help(name: str, *, short: bool = False) -> str:
    """What `--help` says of a recipe key: its text, or the first sentence of it, and its default."""
    value, text = default(name), help_of(name)
    if short:
        first, *others = text.replace(". ", ".\n").split("\n")
        text = " ".join([first, *(sentence for sentence in others if sentence.startswith("Default:"))])
    if value is not None:
        shown = value if isinstance(value, str) else yaml_value(list(value) if isinstance(value, tuple) else value)
        text += f" [default: {shown}]"
    return text


def _shown_as(
    command: Callable[..., None], run: Callable[..., None], signature: inspect.Signature
) -> Callable[..., None]:
    """`run` under the name and help of `command`, with the options of `signature`."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run


def _parameter(name: str, annotation: Any, *, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _sources(words: list[str]) -> tuple[list[str], list[str]]:
    """The first two of `words` that are neither an unknown option nor the value of one, and the others."""
    sources, others = [], []
    for before, word in pairwise(["", *words]):
        is_source = not word.startswith("-") and (not before.startswith("--") or "=" in before)
        (sources if is_source and len(sources) < 2 else others).append(word)
    return sources, others


def _one_way(words: list[str], options: list[str]) -> list[str]:
    """The sources that were given as words or with `--ckpt_path`; UsageError for both ways, or more than two."""
    if words and options:
        help = "give one of them; to compare two networks: vitcli validate FIRST SECOND"
        raise UsageError(f"both {words[0]} and --ckpt_path name what to validate", help=help)
    if len(options) > 2:
        raise UsageError(f"--ckpt_path is given {len(options)} times", help="give one network, or two to compare them")
    return words or options
