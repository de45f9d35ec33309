"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from vitcli.recipe.load import Recipe, load_recipe
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

# recipe keys that a command takes besides its own options; their values are checked as those of a recipe
UseEmaOption = Annotated[
    str | None,
    Option("--use_ema", metavar="BOOL", help="Use the moving average of the weights. [default: true if there is one]"),
]
ImageResizeOption = Annotated[
    str | None, Option("--image_resize", metavar="INT|LIST", help="Size of the input: a side, or height,width.")
]
MeanOption = Annotated[str | None, Option("--mean", metavar="LIST", help="Mean of each channel, 0 to 1.")]
StdOption = Annotated[str | None, Option("--std", metavar="LIST", help="Standard deviation of each channel.")]
InterpolationOption = Annotated[
    str | None, Option("--interpolation", metavar="NAME", help="nearest, bilinear, bicubic or lanczos.")
]
CropPctOption = Annotated[
    str | None, Option("--crop_pct", metavar="FLOAT", help="Share of the resized image that the center crop keeps.")
]
CropModeOption = Annotated[str | None, Option("--crop_mode", metavar="NAME", help="center, squash or border.")]
ClassNamesOption = Annotated[
    Path | None,
    Option(
        "--class_names", metavar="FILE", help="Text file with the name of each output, one per line, in their order."
    ),
]


def recipe_of(**keys: object) -> Recipe:
    """What a command says of a network and its images, as a recipe; None: nothing."""
    return load_recipe(overrides={name: str(value) for name, value in keys.items() if value is not None})


def unknown_options(words: list[str]) -> dict[str, str]:
    """`--key value` pairs that no option took; any other word is an argument too many."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise BadParameter(f"unexpected argument {word!r}")
        name, _, value = word[2:].partition("=")
        if not value and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        found[name] = value
    return found
