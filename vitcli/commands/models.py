"""`vitcli models`: the available architectures, and the sizes of one."""

import fnmatch
from itertools import groupby
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from vitcli.catalog import model_info
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model, list_models

_console = Console(highlight=False, emoji=False, soft_wrap=True)


def _sizes(name: str, img_size: int, num_classes: int) -> tuple[int, int, int, float]:
    """Parameters in training form, fused, fully folded; GMACs of the fused form (convolutions and matrix products)."""
    with torch.device("meta"), torch.no_grad():  # shapes only: no memory is used
        model = create_model(name, num_classes=num_classes, img_size=img_size).eval()
        fused, folded = reparameterize(model), reparameterize(model, fold="full")
        with FlopCounterMode(display=False) as counter:
            fused(torch.empty(1, 3, img_size, img_size))
    counts = [sum(p.numel() for p in form.parameters()) for form in (model, fused, folded)]
    return counts[0], counts[1], counts[2], counter.get_total_flops() / 2e9


def ls(pattern: str = "*") -> None:
    """Print a table of the architectures whose names match `pattern`."""
    table = Table("model", "parameters", "fused", "GMACs", "input px")
    for name in fnmatch.filter(list_models(), pattern):
        size = model_info(name).img_size
        trained, fused, _, gmacs = _sizes(name, size, 1000)
        table.add_row(name, f"{trained:,}", f"{fused:,}", f"{gmacs:.3f}", str(size))
    _console.print(table)


def show(name: str, img_size: int | None = None, num_classes: int = 1000) -> None:
    """Print the sizes, stages and evaluation crop of one architecture."""
    info = model_info(name)
    size = img_size or info.img_size
    trained, fused, folded, gmacs = _sizes(name, size, num_classes)
    table = Table(title=name, show_header=False, title_justify="left", title_style="bold")
    if trained == fused == folded:
        table.add_row("parameters", f"{trained:,}")
    else:
        table.add_row("parameters, training form", f"{trained:,}")
        table.add_row("parameters, reparameterized", f"{fused:,}")
        table.add_row("parameters, fully folded", f"{folded:,}")
    table.add_row("GMACs in evaluation", f"{gmacs:.3f} at {size} px")
    table.add_row("evaluation crop_pct", f"{info.crop_pct:g}")
    with torch.device("meta"), torch.no_grad():
        model: Any = create_model(name, num_classes=num_classes, img_size=size).eval()
        shapes = [tuple(m.shape[1:]) for m in model.features(torch.zeros(1, 3, size, size))]
    runs = [f"{len(list(run))} x {shape}" for shape, run in groupby(shapes)]
    table.add_row("feature maps (C, H, W)", "  ".join(run.removeprefix("1 x ") for run in runs))
    _console.print(table)
