"""`export`, `predict` and `bench infer`: from a trained network to one that runs elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, BadParameter, Context, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import ANY_SOURCE, JsonOption, PluginOption, SourceArgument, loading
from vitcli.cli.recipe_keys import with_keys
from vitcli.deploy.formats import formats
from vitcli.errors import UsageError
from vitcli.recipe.load import Recipe

deployment_app = Commands()
bench_app = Commands(no_args_is_help=True, help="Measure speed and memory on this machine.")
deployment_app.add_typer(bench_app, name="bench")


_PRECISIONS = (
    "fp32, bf16, fp16 or int8, as the format supports; aoti, native and torch_export also have int8_dynamic, aoti and "
    "torch_export int8_weight."
)
#: recipe keys by which a user describes a network and its images where the weights do not
_DESCRIPTION = (
    "task", "class_names", "use_ema", "image_resize", "mean", "std", "interpolation", "crop_pct", "crop_mode",
    "pixel_range",
)  # fmt: skip
_NODE_MODULES = "With --to web: where npm has installed onnxruntime-web. [default: ./node_modules, if it is there]"
_HEATMAP = (
    "Also draw into this new folder where in each image the network finds its most probable class; not for exported "
    "networks."
)
_INPUTS = "pixels: uint8 (B, H, W, C) in, probabilities out. normalized: float32 (B, C, H, W) in, logits out."


@deployment_app.command()
@with_keys(*_DESCRIPTION)
def export(
    ctx: Context,
    source: SourceArgument,
    to: Annotated[
        str,
        Option(metavar="FORMAT", help=f"{', '.join(formats())}; fused writes a file of weights."),
    ],
    out: Annotated[Path, Option("-o", "--out", help="New folder; with --to fused, a new .safetensors file.")],
    precision: Annotated[str, Option(metavar="NAME", help=_PRECISIONS)] = "fp32",
    data_dir: Annotated[
        Path | None,
        Option(
            "--data_dir",
            metavar="DIR",
            help="Labeled images for the comparison with the source and for int8. [default: those of the run]",
        ),
    ] = None,
    val_split: Annotated[
        str | None,
        Option("--val_split", metavar="NAME", help="Split to compare on. [default: the one used in training]"),
    ] = None,
    input: Annotated[Literal["pixels", "normalized"], Option(help=_INPUTS)] = "pixels",
    batch: Annotated[
        int | None, Option(min=1, metavar="N", help="Fix the batch size. [default: any batch size]")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], Option(help="Device for which aoti and torch_export compile.")] = "cpu",
    num_images: Annotated[
        int, Option("--num_images", min=0, metavar="N", help="Images in the comparison; 0: all.")
    ] = 2000,
    num_calibration: Annotated[
        int, Option("--num_calibration", min=1, metavar="N", help="Images for the calibration of int8.")
    ] = 300,
    node_modules: Annotated[Path | None, Option("--node_modules", metavar="DIR", help=_NODE_MODULES)] = None,
    fold: Annotated[
        Literal["standard", "full"],
        Option(help="With --to fused: standard is the form that timm and Apple publish, full folds more."),
    ] = "full",
    accept: Annotated[bool, Option("--accept", help="Write the artifact even if it is out of tolerance.")] = False,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Export a network to another runtime, and verify that it computes the same.

    Example: `vitcli export runs/… --to openvino --precision int8 --data_dir DIR -o exported`.
    """
    of_fused = "source", "to", "out", "fold", "plugin", *recipe.origins
    of_others = {"fold"} if to == "web" else {"fold", "node_modules"}
    _refuse_others(ctx, *(of_fused if to == "fused" else (name for name in ctx.params if name not in of_others)))
    _refuse_early(source, out)
    if to == "fused":
        with loading():
            from vitcli.commands.export import export_fused
        export_fused(source, out, fold=fold, recipe=recipe)
        return
    from vitcli.deploy.plan import ExportPlan, check_plan

    plan = ExportPlan(
        to=to,
        precision=precision,
        input=input,
        batch=batch,
        device=device,
        data_dir=data_dir,
        val_split=val_split,
        num_images=num_images,
        num_calibration=num_calibration,
        node_modules=node_modules,
        accept=accept,
    )
    check_plan(plan)
    with loading():
        from vitcli.commands.export import export as run
    run(source, out, plan, recipe=recipe)


def _refuse_early(source: str, out: Path) -> None:
    """What can be refused before PyTorch is imported, which takes seconds."""
    from vitcli.deploy.artifact import check_is_new
    from vitcli.weights.address import check_there

    check_is_new(out)
    check_there(source)


def _refuse_others(ctx: Context, *allowed: str) -> None:
    """UsageError for an option that was typed and is not `allowed`."""
    typed = [name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if others := [f"--{name}" for name in typed if name not in allowed]:
        raise UsageError(f"{', '.join(others)} has no effect with --to {ctx.params['to']}", help="remove it")


@deployment_app.command()
@with_keys(*_DESCRIPTION, "max_image_pixels")
def predict(
    source: Annotated[str, Argument(metavar="SOURCE", help=ANY_SOURCE)],
    images: Annotated[
        list[str], Argument(metavar="IMAGES", help="Files, folders or patterns; - reads a list from standard input.")
    ],
    top: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Show at most N classes. [default: 5; all that an image has if it may have any number]",
        ),
    ] = None,
    csv: Annotated[
        Path | None, Option("--csv", metavar="FILE", help="Also write path, rank, class, probability to this file.")
    ] = None,
    json: JsonOption = None,
    heatmap: Annotated[Path | None, Option("--heatmap", metavar="DIR", help=_HEATMAP)] = None,
    heatmap_class: Annotated[
        str | None,
        Option("--heatmap_class", metavar="NAME", help="With --heatmap: explain this class, in every image."),
    ] = None,
    overlay: Annotated[
        Path | None, Option("--overlay", metavar="DIR", help="Also draw each image with its classes into this folder.")
    ] = None,
    batch_size: Annotated[
        int, Option("--batch_size", min=1, metavar="N", help="Images that are classified together.")
    ] = 16,
    threads: Annotated[
        int | None, Option(min=1, metavar="N", help="Threads of the network. [default: all cores]")
    ] = None,
    device: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="cpu, cuda, or for OpenVINO artifacts any OpenVINO device, such as GPU. "
            "[default: the device of the export; for a run, a GPU if there is one]",
        ),
    ] = None,
    on_bad_image: Annotated[
        Literal["fail", "skip"],
        Option(
            "--on_bad_image",
            help="If images are unreadable, exit with code 3 (fail) or 0 (skip) after the others are classified.",
        ),
    ] = "fail",
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Print the most probable classes of images; with task multilabel those that each image has, or none.

    `vitcli predict exported photo.jpg` is enough: class names and preprocessing are stored with the network.
    """
    from vitcli.weights.address import check_there

    check_there(source)
    from vitcli.commands.predict import predict as run

    run(
        source,
        images,
        top=top,
        csv=csv,
        json=json,
        heatmap=heatmap,
        heatmap_class=heatmap_class,
        overlay=overlay,
        recipe=recipe,
        batch_size=batch_size,
        threads=threads,
        device=device,
        on_bad_image=on_bad_image,
    )


@bench_app.command("infer")
def bench_infer(
    items: Annotated[
        list[str],
        Argument(
            metavar="ITEM", help="An exported folder, a run, a model name, or timm:NAME for a comparison with timm."
        ),
    ],
    batch: Annotated[str, Option(metavar="LIST", help="Batch sizes.")] = "1,16",
    threads: Annotated[
        str | None, Option(metavar="LIST", help="Numbers of threads. [default: 1 and the number of cores]")
    ] = None,
    rounds: Annotated[int, Option(min=1, metavar="N", help="Number of turns of each item.")] = 10,
    seconds: Annotated[float, Option(min=0, metavar="SECONDS", help="Length of a turn.")] = 1.0,
    img_size: Annotated[
        int | None, Option("--img_size", min=8, metavar="N", help="Input side in pixels of models given by name.")
    ] = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> None:
    """Measure latency, throughput and memory of several networks on the CPU.

    Models given by name have random weights and are fully reparameterized. All items are compared with the first one.
    """
    with loading():
        from vitcli.commands.bench import bench_infer as run
    counts = _counts(batch), _counts(threads) if threads else None
    run(items, batches=counts[0], threads=counts[1], rounds=rounds, seconds=seconds, img_size=img_size, json_file=json)


@bench_app.command("data")
@with_keys(
    "dataset", "train_split", "image_resize", "in_channels", "train_crop", "decode", "scale", "ratio", "hflip", "vflip",
    "color_jitter", "interpolation", "auto_augment", "max_image_pixels",
)  # fmt: skip
def bench_data(
    data_dirs: Annotated[
        list[Path], Argument(metavar="DIR", help="Folders as for --data_dir; packed data is recognized.")
    ],
    num_images: Annotated[int, Option("--num_images", min=1, metavar="N", help="Images of a round.")] = 256,
    rounds: Annotated[int, Option(min=1, metavar="N", help="Number of rounds.")] = 5,
    workers: Annotated[
        str | None, Option(metavar="LIST", help="Also measure the loader with these numbers of worker processes.")
    ] = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Measure how many training images per second one thread makes, compared with timm if it is installed."""
    with loading():
        from vitcli.commands.bench_data import bench_data as run
    counts = _counts(workers) if workers else ()
    run(data_dirs, recipe, num_images=num_images, rounds=rounds, workers=counts, json_file=json)


def _counts(text: str) -> list[int]:
    """`1,16` -> [1, 16]"""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise BadParameter(f"{text!r} is not a list of counts such as 1,16")
    return numbers
