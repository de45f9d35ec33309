"""`vitcli models`: the available architectures, and the sizes of one."""

import fnmatch
from itertools import groupby
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitcli.catalog import model_info
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model, list_models
from vitcli.weights.published import Published, published

_console = Console(highlight=False, emoji=False, soft_wrap=True)


def _sizes(name: str, img_size: int, num_classes: int) -> tuple[nn.Module, nn.Module, float]:
    """The model in training form and fused, without values, and GMACs of the latter (convolutions, matrix products)."""
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, img_size=img_size).eval()
    fused = reparameterize(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fused(torch.empty(1, 3, img_size, img_size, device="meta"))
    return model, fused, counter.get_total_flops() / 2e9


def _num_parameters(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,}"


def ls(pattern: str = "*") -> None:
    """Print a table of the architectures whose names match `pattern`."""
    table = Table("model", "parameters", "fused", "GMACs", "input px")
    for name in fnmatch.filter(list_models(), pattern):
        size = model_info(name).img_size
        model, fused, gmacs = _sizes(name, size, 1000)
        table.add_row(name, _num_parameters(model), _num_parameters(fused), f"{gmacs:.3f}", str(size))
    _console.print(table)


def show(name: str, img_size: int | None = None, num_classes: int = 1000) -> None:
    """Print the sizes, stages and evaluation crop of one architecture, and addresses of published weights."""
    info = model_info(name)
    size = img_size or info.img_size
    model, fused, gmacs = _sizes(name, size, num_classes)
    table = Table(title=name, show_header=False, title_justify="left", title_style="bold")
    forms = {"training form": model, "reparameterized": fused, "fully folded": reparameterize(model, fold="full")}
    counts = {form: _num_parameters(network) for form, network in forms.items()}
    if len(set(counts.values())) == 1:
        table.add_row("parameters", counts["training form"])
    else:
        for form, count in counts.items():
            table.add_row(f"parameters, {form}", count)
    table.add_row("GMACs in evaluation", f"{gmacs:.3f} at {size} px")
    table.add_row("evaluation crop_pct", f"{info.crop_pct:g}")
    with torch.no_grad():
        features: Any = model.features
        shapes = [tuple(m.shape[1:]) for m in features(torch.empty(1, 3, size, size, device="meta"))]
    runs = [f"{len(list(run))} x {shape}" for shape, run in groupby(shapes)]
    table.add_row("feature maps (C, H, W)", "  ".join(run.removeprefix("1 x ") for run in runs))
    _console.print(table)
    if found := published(name):
        _console.print(_published_table(found))


def _published_table(found: list[Published]) -> Table:
    table = Table("--ckpt_path", "ImageNet top-1", "license", title="published weights", title_justify="left")
    table.columns[0].overflow = "fold"
    for weights in found:
        table.add_row(weights.address, f"{weights.top1:.2f}" if weights.top1 else "", weights.license)
    return table
