"""The parts that training and validation build alike: data, preparation, model, precision."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vitcli.data.crops import Crops, CropTransform, build_crop_transform
from vitcli.data.eval_transform import EvalTransform, build_eval_transform
from vitcli.data.images import ImageSet
from vitcli.data.loader import Batches, build_eval_loader, default_num_workers
from vitcli.data.mixing import Normalizer
from vitcli.distributed import World, num_launched
from vitcli.engine.evaluate import EvalResult, evaluate, evaluate_crops
from vitcli.errors import DataError, RecipeError, UsageError
from vitcli.log import Reporter
from vitcli.models.registry import create_model
from vitcli.recipe import check
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import OWN_KEYS

#: recipe keys that say how an image becomes the network's input; they travel with every checkpoint
PREPROCESSING = ("image_resize", "crop_pct", "interpolation", "mean", "std", "in_channels")


def check_launch(recipe: Recipe) -> list[str]:
    """Refuse a recipe that contradicts how it was started; returns notes."""
    problems, notes = check.launch(recipe, num_launched())
    if problems:
        raise RecipeError(problems)
    return notes


def check_device(recipe: Recipe, device: torch.device) -> list[str]:
    """Refuse what the device cannot do; returns notes on what is done otherwise than asked."""
    if recipe.system.amp == "fp16" and device.type == "cpu":
        raise UsageError(
            "amp fp16 needs a GPU: the CPU has no fast fp16 arithmetic", help="use --amp bf16 or --amp off"
        )
    if recipe.system.channels_last and device.type == "cpu":
        return ["channels_last is left out: PyTorch's CPU kernels crash with it in training"]
    return []


def check_frozen(recipe: Recipe) -> None:
    """Refuse to freeze or to quantize weights that nothing was learned by yet."""
    freeze, quantize = recipe.optimizer.freeze, recipe.model.quantize
    if recipe.model.ckpt_path is not None:
        return
    if isinstance(freeze, str):
        raise UsageError(f"freeze: {freeze}, but the weights are random", help="give --ckpt_path, or leave freeze out")
    if quantize != "none":
        help = "train without quantize first, then give that run by --ckpt_path"
        raise UsageError(f"quantize: {quantize}, but the weights are random", help=help)


def num_workers(recipe: Recipe, world: World) -> int:
    given = recipe.dataset.num_parallel_workers
    return default_num_workers(world.local_size) if given is None else given


def check_num_classes(recipe: Recipe, class_names: list[str]) -> int:
    """The number of classes, which the data defines; a recipe that says otherwise is refused."""
    given, found = recipe.model.num_classes, len(class_names)
    if given is not None and given != found:
        shown = ", ".join(class_names[:6]) + (", …" if found > 6 else "")
        table = f"  recipe  {given:>6} classes (num_classes)\n  data    {found:>6} classes ({shown})"
        raise DataError(
            f"recipe and data disagree on the number of classes:\n{table}",
            help="leave num_classes out: it follows from the data",
        )
    return found


def build_model(recipe: Recipe, num_classes: int) -> nn.Module:
    section = recipe.model
    own = {name: value for name in OWN_KEYS if (value := recipe.get(name)) is not None}
    return create_model(
        section.model,
        num_classes=num_classes,
        in_chans=section.in_channels,
        img_size=recipe.augmentation.image_resize,
        drop_rate=section.drop_rate,
        drop_path_rate=section.drop_path_rate,
        layer_scale_init=section.layer_scale_init,
        grad_checkpointing=section.grad_checkpointing,
        **own,
    )


def float_layers(model: nn.Module) -> tuple[str, ...]:
    """The layers that int8 spares, as is usual: where the image enters and where the logits leave."""
    return (*getattr(model, "first_convs", ()), *getattr(model, "classifiers", ()), "fine_tune")


def chosen_amp(recipe: Recipe, device: torch.device) -> Literal["off", "bf16", "fp16"]:
    """The recipe's `amp`, with `auto` decided for this device."""
    amp = recipe.system.amp
    if amp != "auto":
        return amp
    if device.type != "cuda" or recipe.model.quantize != "none":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def build_autocast(recipe: Recipe, device: torch.device) -> Callable[[], torch.autocast]:
    amp = chosen_amp(recipe, device)
    dtype = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    return partial(torch.autocast, device.type, dtype=dtype, enabled=amp != "off")


def build_evaluate(recipe: Recipe, images: ImageSet, world: World) -> Callable[..., EvalResult]:
    """A function of (model, should_stop) that evaluates on `images`."""
    transform = build_eval_transform(recipe.augmentation, in_channels=recipe.model.in_channels)
    loader = _eval_loader(recipe, images, world, transform, batch_size=_eval_batch_size(recipe))
    parts = _eval_parts(recipe, images, world)

    def run(model: nn.Module, should_stop: Callable[[], bool] = lambda: False) -> EvalResult:
        return evaluate(model, loader, should_stop=should_stop, **parts)

    return run


def build_evaluate_crops(
    recipe: Recipe, images: ImageSet, world: World, crops: Crops
) -> Callable[..., tuple[EvalResult, EvalResult]]:
    """A function of the model: the result by the single crop, and by the average of `crops`.

    A batch holds as many crops as it holds images otherwise, or those of one image where these are more.
    """
    batch_size = _eval_batch_size(recipe)
    transform = build_crop_transform(crops, recipe.augmentation, in_channels=recipe.model.in_channels)
    loader = _eval_loader(recipe, images, world, transform, batch_size=max(1, batch_size // (1 + crops.num_crops)))
    parts = _eval_parts(recipe, images, world)
    return partial(evaluate_crops, batches=loader, average=crops.average, chunk_size=batch_size, **parts)


def _eval_batch_size(recipe: Recipe) -> int:
    return recipe.dataset.val_batch_size or recipe.dataset.batch_size


def _eval_loader(
    recipe: Recipe, images: ImageSet, world: World, transform: EvalTransform | CropTransform, *, batch_size: int
) -> Batches:
    return build_eval_loader(
        images,
        transform,
        batch_size=batch_size,
        rank=world.rank,
        world_size=world.size,
        num_workers=num_workers(recipe, world),
        pin_memory=world.device.type == "cuda",
    )


def _eval_parts(recipe: Recipe, images: ImageSet, world: World) -> dict[str, Any]:
    return {
        "prepare": Normalizer(recipe.augmentation.mean, recipe.augmentation.std, recipe.model.in_channels),
        "num_images": len(images),
        "device": world.device,
        "autocast": build_autocast(recipe, world.device),
    }


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    flat = recipe.flat()
    return {name: flat[name] for name in PREPROCESSING}


def result_rows(result: EvalResult) -> list[tuple[str, str]]:
    """The rows of a table that tell a result."""
    low, high = result.interval95()
    return [
        ("top-1", f"{result.top1:.2f} %  ({result.correct1:,} right; 95 % interval {low:.2f} .. {high:.2f})"),
        ("top-5", f"{result.top5:.2f} %"),
        ("NLL", f"{result.nll:.4f}"),
    ]


def say_notes(reporter: Reporter, *groups: Any) -> None:
    for group in groups:
        for note in group:
            reporter.note(note)


def relative(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
