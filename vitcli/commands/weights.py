"""`vitcli weights`: describe weights, convert them for other projects, make fused ones trainable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from vitcli.catalog import model_info
from vitcli.data.datasets import build_split
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader, default_num_workers
from vitcli.data.mixing import Normalizer
from vitcli.errors import WeightsError
from vitcli.image_size import in_words
from vitcli.log import SafeConsole
from vitcli.models.fastvit_keys import from_apple, is_apple
from vitcli.models.vit_keys import family_of
from vitcli.networks.opened import open_weights
from vitcli.recipe.load import load_recipe
from vitcli.weights.convert import Target, check_out, convert_weights
from vitcli.weights.fit import Fit, find_fit, why_not
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights
from vitcli.weights.unfuse import BATCH_SIZE, Unfused, made_up_images, unfuse_weights, write_unfused

#: images on which the statistics of an unfused network are measured: of the user's, or made-up ones
NUM_REAL, NUM_MADE_UP = 256, 64
_console = SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)
_PROJECTS = {
    "torchvision": "torchvision",
    "hf": "Hugging Face transformers",
    "google": "Google (JAX)",
    "vit-pytorch": "vit-pytorch",
    "mindcv": "MindCV",
}


def show(source: str) -> None:
    """Print a table of what is known about the weights in `source`."""
    weights = open_weights(source)
    fit, why_none = _fit(weights)
    tensors = weights.tensors
    table = Table(title=weights.source, show_header=False, title_justify="left", title_style="bold")
    table.add_row("names", _origin(weights, fit))
    table.add_row("model", str(fit) if fit else why_none)
    if fit and fit.seen:
        size = in_words(fit.seen["img_size"]) if "img_size" in fit.seen else "? px"
        table.add_row("image", f"{size}, {fit.seen.get('in_chans', '?')} channels")
    table.add_row("parameters", f"{sum(t.numel() for t in tensors.values()):,} in {len(tensors)} tensors")
    table.add_row("data type", ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})))
    if classes := _classes(weights, fit):
        table.add_row("classes", classes)
    table.add_row("preprocessing", _preprocessing(weights))
    for column in table.columns:
        column.overflow = "fold"
    for name in list(tensors)[:3]:
        table.add_row(name, str(tuple(tensors[name].shape)))
    _console.print(table)


def _fit(weights: Weights) -> tuple[Fit | None, str]:
    """The model of the weights, or why there is none."""
    try:
        fit = find_fit(weights)
    except WeightsError as error:
        return None, error.message.removeprefix(f"{weights.source}: ")
    return fit, f"none of the registry{why_not(weights.tensors)}"


def convert(source: str, to: Target, out: Path, num_heads: int | None = None, *, use_ema: bool | None = None) -> None:
    """Write the weights in `source` for another project; print where they are and what was not kept."""
    for note in convert_weights(open_weights(source, use_ema=use_ema), to, out, num_heads=num_heads):
        _console.note(note)
    _console.say(f"wrote {out}")


def unfuse(source: str, out: Path, data_dir: Path | None = None) -> None:
    """Write the fused weights in `source` in training form; print where they are and how exact they are."""
    check_out("vitcli", out)
    unfused = unfuse_weights(open_weights(source))
    if unfused.needs_images and not data_dir:
        _console.note("statistics are measured on made-up images; real ones are better: --data_dir DIR")
    made_up = made_up_images(NUM_MADE_UP, in_chans=unfused.in_chans, img_size=unfused.img_size)
    images = _real_images(unfused, data_dir) if data_dir else made_up
    difference = write_unfused(unfused, images, out)
    _console.say(f"wrote {out}: {unfused.name} in training form, relative error of the logits {difference:.1e}")


def _real_images(unfused: Unfused, data_dir: Path) -> Iterator[Tensor]:
    """Batches of the training split in `data_dir`, with the evaluation preprocessing of the weights."""
    wanted: dict[str, Any] = {"data_dir": data_dir, "image_resize": unfused.img_size, "in_channels": unfused.in_chans}
    wanted["crop_pct"] = model_info(unfused.name).crop_pct
    recipe = load_recipe(overrides=wanted | (preprocessing_of(unfused.weights) or {}))
    loader = build_eval_loader(
        build_split(recipe.dataset, "train").subset(NUM_REAL),
        build_eval_transform(recipe.augmentation, in_channels=unfused.in_chans),
        batch_size=BATCH_SIZE,
        num_workers=default_num_workers(),
    )
    normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std, unfused.in_chans)
    return (normalize(batch.images) for batch in loader)


def _origin(weights: Weights, fit: Fit | None) -> str:
    family = family_of(weights.tensors)
    if family in _PROJECTS:
        return _PROJECTS[family]
    if is_apple(weights.tensors):
        return "Apple (ml-fastvit)"
    return "timm's, as in vitcli" if family or fit else "not recognized"


def _classes(weights: Weights, fit: Fit | None) -> str:
    names: list[str] = weights.meta.get("class_names") or []
    seen = fit.seen if fit else {}
    count = seen.get("num_classes") or len(from_apple(weights.tensors).get("head.fc.weight", names))
    if not count:
        return ""
    return f"{count:,}" + (f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else "")


def _preprocessing(weights: Weights) -> str:
    try:
        found = preprocessing_of(weights)
    except WeightsError as error:
        return error.message.removeprefix(f"{weights.source}: ")
    if found is None:
        return "not known; set mean, std, interpolation, crop_pct"
    shown = {name: " ".join(f"{x:g}" for x in value) for name, value in found.items() if isinstance(value, tuple)}
    return "; ".join(f"{name} {value}" for name, value in (found | shown).items())
