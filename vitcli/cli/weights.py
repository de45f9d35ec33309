"""`vitcli weights`."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from vitcli.cli.help import Commands
from vitcli.cli.options import PluginOption, SourceArgument
from vitcli.cli.recipe_keys import with_keys
from vitcli.recipe.load import Recipe

weights_app = Commands(no_args_is_help=True, help="Describe weights, and convert them for other projects.")


@weights_app.command("show")
def weights_show(source: SourceArgument, plugin: PluginOption = None) -> None:
    """Show which project's weights they are, which model and options they fit, and which preprocessing they expect."""
    from vitcli.commands import weights

    weights.show(source)


@weights_app.command("convert")
@with_keys("use_ema")
def weights_convert(
    source: SourceArgument,
    to: Annotated[
        Literal["vitcli", "timm", "torchvision", "hf", "google", "apple"],
        Option(help="The project whose names are written."),
    ],
    out: Annotated[Path, Option("-o", "--out", help="New file; for timm and hf, a new folder.")],
    num_heads: Annotated[
        int | None,
        Option("--num_heads", min=1, help="Attention heads of a ViT, if the weights do not state their number."),
    ] = None,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Write the same tensors under another project's names, with the configuration that it needs."""
    from vitcli.commands import weights

    weights.convert(source, to, out, num_heads, use_ema=recipe.model.use_ema)


@weights_app.command("unfuse")
def weights_unfuse(
    source: SourceArgument,
    out: Annotated[Path, Option("-o", "--out", help="New .safetensors file.")],
    data_dir: Annotated[
        Path | None,
        Option("--data_dir", metavar="DIR", help="Image folder; statistics are measured on its training images."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Turn weights that were fused for deployment into equivalent ones that can be trained."""
    from vitcli.commands import weights

    weights.unfuse(source, out, data_dir)
