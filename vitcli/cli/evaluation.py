"""`validate`, where every recipe key is an option, and `embed`."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import ConfigOption, JsonOption, PluginOption, SourceArgument, loading
from vitcli.cli.recipe_keys import VALIDATE_KEYS, command_with_keys, with_keys
from vitcli.recipe.load import Recipe, load_recipe

evaluation_app = Commands()


@command_with_keys(evaluation_app, VALIDATE_KEYS)
def validate(
    ctx: Context,
    sources: list[str] | None = None,
    config: ConfigOption = None,
    fold: Annotated[
        Literal["none", "standard", "full"],
        Option(help="Reparameterize the network first; none: evaluate it in the form its weights have."),
    ] = "none",
    eval_crops: Annotated[
        Literal["1", "5", "10", "144"],
        Option("--eval_crops", help="Crops per image and scale; the result by the single center crop is reported too."),
    ] = "1",
    crop_scales: Annotated[
        str | None,
        Option(
            "--crop_scales",
            metavar="LIST",
            help="Shorter side of the image / side of the crop, such as 1.0,1.5: crops are taken at each scale. "
            "[default: 1.5 for 5 crops; 256/224 for 10; 256, 288, 320, 352 / 224 for 144]",
        ),
    ] = None,
    crop_average: Annotated[
        Literal["prob", "logit"], Option("--crop_average", help="What to average over the crops.")
    ] = "prob",
    json: JsonOption = None,
    predictions: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Also write the answer to each image to this file: .csv, .tsv, .jsonl or .parquet.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        Option(metavar="FILE", help="Also write the page of `vitcli report` to this file; of two networks, compared."),
    ] = None,
    temperature: Annotated[
        Literal["stored", "none", "fit"],
        Option(
            help="Divide the logits by the temperature that is stored in the run, or not. fit: find it on one half of "
            "the validation images, measure it on the other, and store it for validate, predict and export."
        ),
    ] = "stored",
    *,
    recipe_keys: dict[str, str],
) -> None:
    """Measure the accuracy of a checkpoint or an exported network on the validation split.

    For a run, `vitcli validate runs/…` is enough: its recipe, preprocessing and class names are stored with it.
    Two networks, `vitcli validate FIRST SECOND`, are compared on the same images.
    """
    chosen = sources or []
    recipe = load_recipe(config, recipe_keys | dict(zip(["ckpt_path"], chosen, strict=False)))
    _check_there(recipe.model.ckpt_path, *chosen)
    with loading():
        from vitcli.commands.validate import validate as run
        from vitcli.data.crops import Crops, read_scales
    scales = None if crop_scales is None else read_scales(crop_scales)
    crops = None if eval_crops == "1" and scales is None else Crops(eval_crops, scales, crop_average)
    other = chosen[1] if len(chosen) > 1 else None
    run(
        recipe,
        compare_with=other,
        fold=fold,
        crops=crops,
        json_file=json,
        predictions=predictions,
        report=report,
        temperature=temperature,
    )


@evaluation_app.command()
@with_keys("use_ema")
def embed(
    source: SourceArgument,
    folder: Annotated[
        Path, Argument(metavar="DIR", help="Images, at any depth; if all are in subfolders, these are classes.")
    ],
    out: Annotated[Path, Option("-o", "--out", metavar="FILE", help="A .npz or .parquet file.")],
    batch_size: Annotated[
        int, Option("--batch_size", min=1, metavar="N", help="Images that the network sees at a time.")
    ] = 64,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], Option(help="Where to compute; auto: a GPU if there is one.")
    ] = "auto",
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Write the features of every image in a folder to one file, with names and labels.

    `vitcli embed runs/… photos -o features.npz`; each row is the output of the network before its classifier.
    """
    with loading():
        from vitcli.commands.embed import embed as run
    run(source, folder, out, batch_size=batch_size, device=device, recipe=recipe)


def _check_there(*sources: str | None) -> None:
    """Refuse a wrong path before PyTorch is imported, which takes seconds."""
    from vitcli.weights.address import check_there

    for source in filter(None, sources):
        check_there(source)
