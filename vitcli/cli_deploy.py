"""The commands that export networks and run what came of it: `export`, `predict`, `bench infer`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitcli.errors import UsageError
from vitcli.recipe.plugins import use_plugin

deploy_app = typer.Typer()
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")
deploy_app.add_typer(bench_app, name="bench")


def _use_plugins(files: list[Path] | None) -> None:
    for file in files or ():
        use_plugin(file)


PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", callback=_use_plugins, help="Python file that adds models or parts."),
]


def _refuse_others(ctx: typer.Context, *taken: str) -> None:
    """UsageError for an option that was typed and is not one of `taken`."""
    typed = [name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if others := [f"--{name}" for name in typed if name not in taken]:
        raise UsageError(f"{', '.join(others)} has no meaning with --to {ctx.params['to']}", help="leave it out")


JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result to this file.")]


@deploy_app.command()
def export(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run, a file, or an address; as --ckpt_path.")],
    to: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="onnx, openvino, aoti, executorch, torch_export; fused: a weights file."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder; for fused a new .safetensors file.")],
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="fp32, bf16, fp16, int8; aoti, torch_export: int8_dynamic, int8_weight too."),
    ] = "fp32",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data_dir", metavar="DIR", help="Labeled images: for the comparison, and for int8's ranges."),
    ] = None,
    val_split: Annotated[
        str | None, typer.Option("--val_split", metavar="NAME", help="Folder of the comparison. [default: as trained]")
    ] = None,
    input: Annotated[
        Literal["pixels", "normalized"],
        typer.Option(
            help="pixels: uint8 (B, H, W, C) in, probabilities out. normalized: float32 (B, C, H, W), logits."
        ),
    ] = "pixels",
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The only batch size it will take. [default: any]")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="What aoti and torch_export compile for.")] = "cpu",
    num_images: Annotated[
        int, typer.Option("--num_images", min=0, metavar="N", help="Images of the comparison; 0: all.")
    ] = 2000,
    num_calibration: Annotated[
        int, typer.Option("--num_calibration", min=1, metavar="N", help="Images for int8's ranges.")
    ] = 300,
    use_ema: Annotated[
        bool | None,
        typer.Option("--use_ema/--no_use_ema", help="Averaged or raw weights. [default: averaged if kept]"),
    ] = None,
    fold: Annotated[
        Literal["standard", "full"], typer.Option(help="Of fused: standard is the form timm and Apple publish.")
    ] = "full",
    accept: Annotated[bool, typer.Option("--accept", help="Write it even if it is out of tolerance.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a network for another runtime, and prove that it computes the same.

    `vitcli export runs/… --to openvino --precision int8 --data_dir DIR -o exported`
    """
    from vitcli.commands import export as story

    if to == "fused":
        _refuse_others(ctx, "source", "to", "out", "fold", "use_ema", "plugin")
        story.export_fused(source, out, fold=fold, use_ema=use_ema)
        return
    _refuse_others(ctx, *(name for name in ctx.params if name != "fold"))
    plan = story.ExportPlan(
        to=to,
        precision=precision,
        input=input,
        batch=batch,
        device=device,
        data_dir=data_dir,
        val_split=val_split,
        num_images=num_images,
        num_calibration=num_calibration,
        accept=accept,
    )
    story.export(source, out, plan, use_ema=use_ema)


@deploy_app.command()
def predict(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="What `export` made; or a run, a file, an address as --ckpt_path.")
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Files, folders, patterns; - for a list on standard input.")
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to show.")] = 5,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write path,rank,class,probability to this file.")
    ] = None,
    json: JsonOption = None,
    batch_size: Annotated[
        int, typer.Option("--batch_size", min=1, metavar="N", help="Images that are classified together.")
    ] = 16,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of the network. [default: all cores]")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpu, cuda, or what OpenVINO has beside. [default: as it was exported]"),
    ] = None,
    on_bad_image: Annotated[
        Literal["fail", "skip"],
        typer.Option("--on_bad_image", help="End with exit code 3, or 0, after all others are classified."),
    ] = "fail",
    plugin: PluginOption = None,
) -> None:
    """Tell the most probable classes of images.

    `vitcli predict exported photo.jpg` needs no more: class names and preprocessing travel with the network.
    """
    from vitcli.commands.predict import predict as run

    run(
        source,
        images,
        top=top,
        csv=csv,
        json=json,
        batch_size=batch_size,
        threads=threads,
        device=device,
        on_bad_image=on_bad_image,
    )


@deploy_app.command()
def embed(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run, a file, or an address; as --ckpt_path.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Images, at any depth; if all are in subfolders, these are classes.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="A .npz or .parquet file.")],
    batch_size: Annotated[
        int, typer.Option("--batch_size", min=1, metavar="N", help="Images the network sees at a time.")
    ] = 64,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute; auto: a GPU if there is one.")
    ] = "auto",
    use_ema: Annotated[
        bool | None,
        typer.Option("--use_ema/--no_use_ema", help="Averaged or raw weights. [default: averaged if kept]"),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Write the features of every image in a folder to one file, with names and labels.

    `vitcli embed runs/… photos -o features.npz`; each row is the output of the network before its classifier.
    """
    from vitcli.commands.embed import embed as run

    run(source, folder, out, batch_size=batch_size, device=device, use_ema=use_ema)


def _counts(text: str) -> list[int]:
    """`1,16` -> [1, 16]"""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is no list of counts such as 1,16")
    return numbers


@bench_app.command("infer")
def bench_infer(
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="ITEM", help="What `export` made, a run, a model by name, or timm:NAME to compare with."
        ),
    ],
    batch: Annotated[str, typer.Option(metavar="LIST", help="Images at a time.")] = "1,16",
    threads: Annotated[
        str | None, typer.Option(metavar="LIST", help="Threads. [default: 1, and as many as there are cores]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often each item has its turn.")] = 10,
    seconds: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long a turn is.")] = 1.0,
    img_size: Annotated[
        int | None, typer.Option("--img_size", min=8, metavar="N", help="Side in pixels, for models by name.")
    ] = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> None:
    """Measure latency, throughput and memory on the CPU, item beside item.

    Models by name have random weights and are fully reparameterized. The others are compared with the first item.
    """
    from vitcli.commands.bench import bench_infer as run

    counts = _counts(batch), _counts(threads) if threads else None
    run(
        items,
        batches=counts[0],
        threads=counts[1],
        rounds=rounds,
        seconds=seconds,
        img_size=img_size,
        json_file=json,
    )
