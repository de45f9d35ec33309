"""`vitcli models`."""

from typing import Annotated

from typer import Argument, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import PluginOption
from vitcli.commands import models

models_app = Commands(no_args_is_help=True, help="List and describe architectures.")


@models_app.command("ls")
def models_ls(
    pattern: Annotated[str, Argument(help="Shell pattern, such as 'fastvit_sa*'.")] = "*", plugin: PluginOption = None
) -> None:
    """List the architectures with their sizes."""
    models.ls(pattern)


@models_app.command("show")
def models_show(
    name: Annotated[str, Argument(help="Name of the architecture.")],
    img_size: Annotated[int | None, Option("--img_size", help="Side of the input in pixels.")] = None,
    num_classes: Annotated[int, Option("--num_classes", help="Number of classes.")] = 1000,
    plugin: PluginOption = None,
) -> None:
    """Describe one architecture."""
    from vitcli.commands import models_show

    models_show.show(name, img_size, num_classes)
