"""The commands. Every recipe key is an option of `train` and `validate`, generated from the schema."""

import inspect
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from vitcli.cli_deploy import JsonOption, PluginOption, deploy_app
from vitcli.deploy.artifact import is_artifact
from vitcli.errors import UsageError, VitcliError, show, show_brief
from vitcli.recipe.describe import help_of, metavar
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.recipe.schema import SECTIONS, default
from vitcli.recipe.write import yaml_value

app = typer.Typer(
    name="vitcli",
    help="From a folder of images to a fast vision transformer that runs where it is needed.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show, copy, check and compare recipes.")
models_app = typer.Typer(no_args_is_help=True, help="List and describe architectures.")
weights_app = typer.Typer(no_args_is_help=True, help="Look into weights, and convert them for other projects.")
app.add_typer(deploy_app)
app.add_typer(recipes_app, name="recipes")
app.add_typer(models_app, name="models")
app.add_typer(weights_app, name="weights")

#: options that are not known to typer reach the recipe check, which reports all mistakes at once
_COLLECT_UNKNOWN = {"allow_extra_args": True, "ignore_unknown_options": True}
ConfigOption = Annotated[
    str | None, typer.Option("-c", "--config", metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")
]


#: where typer puts the words that are no known option, when a command may have one of its own
_Words = Annotated[
    list[str] | None, typer.Argument(metavar="[SOURCE]", help="What `export` made; or a run, a file, as --ckpt_path.")
]


def with_recipe_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command(ctx, config, recipe_keys=…, …)` one option for every key of the schema, and `--plugin`.

    A command with a parameter `source` may have one word that is no option.
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
            text = f"{help_of(name)} [default: {yaml_value(_plain(default(name)))}]".replace("null]", "none]")
            option = typer.Option(
                f"--{name}", metavar=metavar(name), help=text, rich_help_panel=section, show_default=False
            )
            parameters.append(inspect.Parameter(name, keyword, default=None, annotation=Annotated[str | None, option]))

    def run(plugin: Any = None, **arguments: Any) -> None:
        keys = {name: arguments.pop(name) for section in SECTIONS.values() for name in section.model_fields}
        given = {name: text for name, text in keys.items() if text is not None}
        words = [*(arguments.get("source") or ()), *arguments["ctx"].args]
        if "source" in arguments:
            arguments["source"], words = _first_word(words)
        command(**arguments, recipe_keys=given | _unknown_options(words))

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _first_word(words: list[str]) -> tuple[str | None, list[str]]:
    """The first of `words` that is neither an unknown option nor the value of one, and the others."""
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if not word.startswith("-") and (not before.startswith("--") or "=" in before):
            return word, words[:index] + words[index + 1 :]
    return None, words


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _unknown_options(words: list[str]) -> dict[str, str]:
    """`--kye value` pairs that no option took; anything else is an argument too many."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise typer.BadParameter(f"unexpected argument {word!r}")
        name, _, value = word[2:].partition("=")
        if not value and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        found[name] = value
    return found


def _recipe(config: str | None, keys: dict[str, str]) -> Recipe:
    """The recipe of the command; a run that is continued brings its own."""
    if config is None and (resumed := keys.get("resume")):
        folder = Path(keys.get("run_dir", "") if resumed == "auto" else resumed)
        if (folder / "recipe.yaml").is_file():
            config = str(folder / "recipe.yaml")
    return load_recipe(config, keys)


@app.command(context_settings=_COLLECT_UNKNOWN)
@with_recipe_keys
def train(ctx: typer.Context, config: ConfigOption = None, *, recipe_keys: dict[str, str]) -> None:
    """Train a model, or continue a run.

    `vitcli train -c fastvit_t8 --data_dir DIR` on this machine,
    `torchrun --nproc_per_node 8 -m vitcli train …` on 8 GPUs.
    Every key of a recipe is an option here; the command line wins over the file.
    """
    recipe = _recipe(config, recipe_keys)
    from vitcli.commands.train import train as run

    run(recipe)


@app.command(context_settings=_COLLECT_UNKNOWN)
@with_recipe_keys
def validate(
    ctx: typer.Context,
    source: str | None = None,
    config: ConfigOption = None,
    fold: Annotated[
        Literal["none", "standard", "full"], typer.Option(help="Reparameterize before measuring.")
    ] = "none",
    use_ema: Annotated[
        str | None,
        typer.Option("--use_ema", metavar="BOOL", help="Averaged or raw weights. [default: averaged if kept]"),
    ] = None,
    eval_crops: Annotated[
        Literal["1", "5", "10", "144"],
        typer.Option("--eval_crops", help="Classify each image by so many crops, and by the single one beside it."),
    ] = "1",
    crop_scales: Annotated[
        str | None,
        typer.Option(
            "--crop_scales",
            metavar="LIST",
            help="Shorter side of the image / side of the crop, such as 1.0,1.5: crops are taken at each scale. "
            "[default: 1.5 for 5 crops, 256/224 for 10; 256, 288, 320, 352 / 224 for 144]",
        ),
    ] = None,
    crop_average: Annotated[
        Literal["prob", "logit"], typer.Option("--crop_average", help="What is averaged over the crops.")
    ] = "prob",
    json: JsonOption = None,
    *,
    recipe_keys: dict[str, str],
) -> None:
    """Count how many validation images a checkpoint, or an exported network, gets right.

    `vitcli validate runs/…` needs no more: a run knows its recipe, preprocessing and classes.
    """
    if source and "ckpt_path" in recipe_keys:
        raise UsageError(f"both {source} and --ckpt_path: one of them is to be validated", help="leave one out")
    source = source or recipe_keys.pop("ckpt_path", None)
    if source and is_artifact(source):
        from vitcli.commands.validate_artifact import validate_exported

        typed = {"fold": fold != "none", "use_ema": use_ema, "eval_crops": eval_crops != "1",
                 "crop_scales": crop_scales, "crop_average": crop_average != "prob"}  # fmt: skip
        besides = {name: "" for name, given in typed.items() if given}
        validate_exported(Path(source), recipe_keys | besides, config=config, json_file=json)
        return
    if source:
        recipe_keys["ckpt_path"] = source
    recipe = load_recipe(config, recipe_keys)
    wanted = {None: None, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if (use_ema and use_ema.lower()) not in wanted:
        raise typer.BadParameter("--use_ema takes true or false")
    from vitcli.commands.validate import validate as run
    from vitcli.data.crops import Crops, read_scales

    many = eval_crops != "1" or crop_scales is not None
    crops = Crops(eval_crops, read_scales(crop_scales) if crop_scales is not None else None, crop_average)
    run(
        recipe,
        fold=fold,
        use_ema=wanted[use_ema and use_ema.lower()],
        crops=crops if many else None,
        json_file=json,
    )


@recipes_app.command("ls")
def recipes_ls() -> None:
    """List the recipes that are shipped."""
    from vitcli.commands import recipes

    recipes.ls()


@recipes_app.command("show", context_settings=_COLLECT_UNKNOWN)
def recipes_show(ctx: typer.Context, recipe: str, plugin: PluginOption = None) -> None:
    """Print every value of a recipe and where it comes from; `--key value` changes one."""
    from vitcli.commands import recipes

    recipes.show(recipe, _unknown_options(ctx.args))


@recipes_app.command("cp")
def recipes_cp(recipe: str, target: Annotated[Path | None, typer.Argument()] = None) -> None:
    """Copy a shipped recipe here, to change it."""
    from vitcli.commands import recipes

    recipes.cp(recipe, target)


@recipes_app.command("validate", context_settings=_COLLECT_UNKNOWN)
def recipes_validate(ctx: typer.Context, recipe: list[str], plugin: PluginOption = None) -> None:
    """Check recipes; all mistakes at once, with file, line and column."""
    from vitcli.commands import recipes

    first_option = next((i for i, word in enumerate(recipe) if word.startswith("--")), len(recipe))
    recipes.check(recipe[:first_option], _unknown_options([*recipe[first_option:], *ctx.args]))


@recipes_app.command("diff")
def recipes_diff(first: str, second: str, plugin: PluginOption = None) -> None:
    """Show the keys in which two recipes differ."""
    from vitcli.commands import recipes

    recipes.diff(first, second)


@models_app.command("ls")
def models_ls(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'fastvit_sa*'.")] = "*",
    plugin: PluginOption = None,
) -> None:
    """List the architectures with their sizes."""
    from vitcli.commands import models

    models.ls(pattern)


@models_app.command("show")
def models_show(
    name: str,
    img_size: Annotated[int | None, typer.Option("--img_size", help="Side of the input in pixels.")] = None,
    num_classes: Annotated[int, typer.Option("--num_classes", help="Classes of the head.")] = 1000,
    plugin: PluginOption = None,
) -> None:
    """Describe one architecture."""
    from vitcli.commands import models

    models.show(name, img_size, num_classes)


SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="A run, a file, or an address; as --ckpt_path.")]


@weights_app.command("show")
def weights_show(source: SourceArgument, plugin: PluginOption = None) -> None:
    """Tell whose weights they are, which model and options they fit, and what images they expect."""
    from vitcli.commands import weights

    weights.show(source)


@weights_app.command("convert")
def weights_convert(
    source: SourceArgument,
    to: Annotated[Literal["vitcli", "timm", "torchvision", "hf", "google", "apple"], typer.Option(help="For whom.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File, or for timm and hf a folder; must not exist.")],
    num_heads: Annotated[
        int | None, typer.Option("--num_heads", min=1, help="Attention heads of a ViT, where nothing tells them.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Write the same tensors under another project's names, with the configuration it needs."""
    from vitcli.commands import weights

    weights.convert(source, to, out, num_heads)


@weights_app.command("unfuse")
def weights_unfuse(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="Safetensors file; must not exist.")],
    data_dir: Annotated[
        Path | None,
        typer.Option("--data_dir", metavar="DIR", help="Image folder; some of its training images are looked at."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Make of weights that were fused for deployment equal ones that can be trained."""
    from vitcli.commands import weights

    weights.unfuse(source, out, data_dir)


def _underscored(words: list[str]) -> list[str]:
    """Options may be written with dashes or underscores; typer's own keep their dashes."""
    kept = ("--install-completion", "--show-completion")

    def spell(word: str) -> str:
        if not word.startswith("--") or word.startswith(kept):
            return word
        name, equals, value = word.partition("=")
        return "--" + name[2:].replace("-", "_") + equals + value

    return [spell(word) for word in words]


def main(words: list[str] | None = None) -> None:
    """Run the command line `words` (default: this process's) and exit with the code of its outcome."""
    try:
        app(_underscored(sys.argv[1:] if words is None else words))
    except VitcliError as error:
        leave(show(error) if os.environ.get("RANK", "0") == "0" else show_brief(error))
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        help = "pip install torch torchvision; without them only `predict` runs, on ONNX and OpenVINO artifacts"
        leave(show(UsageError(f"this command needs {error.name}", help=help)))


def leave(code: int) -> NoReturn:
    """End this process; one of several without the usual farewell, in which it would wait for the others."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def train_main() -> None:
    """`python train.py …`."""
    main(["train", *sys.argv[1:]])


def validate_main() -> None:
    """`python validate.py …`."""
    main(["validate", *sys.argv[1:]])
