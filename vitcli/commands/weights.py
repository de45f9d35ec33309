"""`vitcli weights`: what a file of weights is, and the same weights for another project."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from vitcli.commands.weights_path import open_weights
from vitcli.models.fastvit_keys import from_apple, is_apple
from vitcli.models.vit_keys import family_of
from vitcli.weights.convert import Target, convert_weights
from vitcli.weights.fit import Fit, find_fit
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights

_console = Console(highlight=False, emoji=False, soft_wrap=True)
_PROJECTS = {
    "torchvision": "torchvision",
    "hf": "Hugging Face transformers",
    "google": "Google (JAX)",
    "vit-pytorch": "vit-pytorch",
    "mindcv": "MindCV",
}


def show(source: str) -> None:
    """A table of what is known of the weights in `source`."""
    weights = open_weights(source)
    fit, tensors = find_fit(weights), weights.tensors
    table = Table(title=weights.source, show_header=False, title_justify="left", title_style="bold")
    table.add_row("names", _origin(weights, fit))
    table.add_row("model", str(fit) if fit else "none of the registry")
    if fit and fit.seen:
        table.add_row("image", f"{fit.seen.get('img_size', '?')} px, {fit.seen.get('in_chans', '?')} channels")
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


def convert(source: str, to: Target, out: Path, num_heads: int | None = None) -> None:
    """Write the weights in `source` for another project; says where they are and what is not kept."""
    for note in convert_weights(open_weights(source), to, out, num_heads=num_heads):
        _console.print(f"note: {note}")
    _console.print(f"wrote {out}")


def _origin(weights: Weights, fit: Fit | None) -> str:
    family = family_of(weights.tensors)
    if family in _PROJECTS:
        return _PROJECTS[family]
    if is_apple(weights.tensors):
        return "Apple (ml-fastvit)"
    return "timm, as ours" if family or fit else "not recognised"


def _classes(weights: Weights, fit: Fit | None) -> str:
    names: list[str] = weights.meta.get("class_names") or []
    seen = fit.seen if fit else {}
    count = seen.get("num_classes") or len(from_apple(weights.tensors).get("head.fc.weight", names))
    if not count:
        return ""
    return f"{count:,}" + (f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else "")


def _preprocessing(weights: Weights) -> str:
    found = preprocessing_of(weights)
    if found is None:
        return "not known; give mean, std, interpolation, crop_pct"
    shown = {name: [f"{x:g}" for x in value] if isinstance(value, tuple) else value for name, value in found.items()}
    return "; ".join(f"{name} {' '.join(value) if isinstance(value, list) else value}" for name, value in shown.items())
