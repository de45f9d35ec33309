"""Commands for which every key of a recipe, or some of them, is an option, generated from the schema."""

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

from typer import Argument, Exit, Option
from typer.core import CompletionItem  # pyright: ignore[reportPrivateImportUsage]  # the other place is private, too

from vitcli.cli.help import Commands, Rows, SectionedCommand, one_line
from vitcli.cli.options import ANY_SOURCE, PluginOption, unknown_options
from vitcli.errors import UsageError
from vitcli.recipe.describe import help_of, metavar
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import SECTION_OF, SECTIONS, default
from vitcli.recipe.write import yaml_value

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


def command_with_keys(
    app: Commands, common: tuple[str, ...], name: str | None = None
) -> Callable[[Callable[..., None]], None]:
    """Add `command(ctx, …, recipe_keys=…)` to `app`, with an option for every recipe key, `--plugin` and `--help_all`.

    `--help` shows the keys in `common` only. A command with a parameter `sources` accepts up to two words that are no
    options, or `--ckpt_path` as often. Its own parameters come before keys with the same name.
    """

    def decorate(command: Callable[..., None]) -> None:
        own = inspect.signature(command)
        parameters = [
            p.replace(annotation=_Words) if p.name == "sources" else p
            for p in own.parameters.values()
            if p.name != "recipe_keys"
        ]
        parameters.append(_parameter("plugin", PluginOption))
        parameters.append(_parameter("help_all", _HelpAll, default=False))

        def run(ctx: Any, plugin: Any = None, help_all: bool = False, **arguments: Any) -> None:
            words, given = [*(arguments.get("sources") or ()), *ctx.args], ctx.meta[_GIVEN]
            if "sources" in arguments:
                typed, words = _sources(words)
                arguments["sources"] = _one_way(typed, [text for key, text in given if key == "ckpt_path"])
                given = [(key, text) for key, text in given if key != "ckpt_path"]
            command(ctx, **arguments, recipe_keys=dict(given) | unknown_options(words))

        shown = _shown_as(command, run, own.replace(parameters=parameters))
        app.command(name, cls=type("_Command", (_KeysCommand,), {"common": common}))(shown)

    return decorate


#: of a context: the keys that were typed, with their texts
_GIVEN = "vitcli.recipe_keys"


class _KeysCommand(SectionedCommand):
    """Takes recipe keys from its words before typer sees them: 200 options of typer's would take 0.2 s each time.

    Other options that nobody knows are left in the context; the recipe check reports all mistakes at once.
    """

    allow_extra_args = True
    ignore_unknown_options = True
    common: tuple[str, ...] = ()  #: the keys that `--help` shows

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        keys, given, left = self._keys(), [], []
        words = iter(args)
        for word in words:
            key, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--") or key not in keys:
                left.append(word)
                continue
            text = value if equals else next(words, "--")
            if text.startswith("--") and not ctx.resilient_parsing:
                raise UsageError(f"--{key} has no value", help=f"write --{key} {metavar(key)}")
            given.append((key, text))
        ctx.meta[_GIVEN] = given
        return super().parse_args(ctx, left)

    def sections(self, ctx: Any) -> dict[str, Rows]:
        return super().sections(ctx) | {"Common recipe keys": [_row(key, short=True) for key in self.common]}

    def all_sections(self, ctx: Any) -> dict[str, Rows]:
        """Every option, and the recipe keys by their sections."""
        by_section = {name: [_row(key) for key in self._keys() if SECTION_OF[key] == name] for name in SECTIONS}
        return super().sections(ctx) | by_section

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        names = {f"--{key}": key for key in self._keys()} if incomplete.startswith("-") else {}
        keys = [CompletionItem(name, help=help_of(key)) for name, key in names.items() if name.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete) + keys

    def _keys(self) -> list[str]:
        """The keys of the schema that are not names of the command's own options."""
        own = {parameter.name for parameter in self.params}
        return [name for name in SECTION_OF if name not in own]


def _show_all(ctx: Any, wanted: bool) -> None:
    """The callback of `--help_all`."""
    if wanted:
        ctx.command.show(ctx, ctx.command.all_sections(ctx))
        raise Exit


#: the words that belong to no option, for a command that accepts one or two
_Words = Annotated[list[str] | None, Argument(metavar="[SOURCE] [SOURCE]", help=f"{ANY_SOURCE} Two are compared.")]
_HelpAll = Annotated[
    bool,
    Option("--help_all", is_eager=True, callback=_show_all, help=f"Show all {len(SECTION_OF)} recipe keys and exit."),
]


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


def _row(name: str, *, short: bool = False) -> tuple[str, str]:
    """What `--help` says of a recipe key: what is typed; its text, or the first sentence of it, and its default."""
    value, text = default(name), help_of(name)
    if short:
        first, *others = text.replace(". ", ".\n").split("\n")
        text = " ".join([first, *(sentence for sentence in others if sentence.startswith("Default:"))])
    if value is not None:
        shown = value if isinstance(value, str) else yaml_value(list(value) if isinstance(value, tuple) else value)
        text += f" [default: {shown}]"
    return f"--{name} {metavar(name)}", one_line(text)


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
