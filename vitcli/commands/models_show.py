"""`vitcli models show`: the sizes, stages and published weights of one architecture."""

from itertools import groupby
from typing import Any

import torch
from rich.table import Table

from vitcli.catalog import model_info
from vitcli.layers.reparam import reparameterize
from vitcli.log import SafeConsole
from vitcli.models.sizes import gmacs_of, num_parameters, without_values
from vitcli.weights.published import Published, published

_console = SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)


def show(name: str, img_size: int | None = None, num_classes: int = 1000) -> None:
    """Print the sizes, stages and evaluation crop of one architecture, and addresses of published weights."""
    info = model_info(name)
    size = img_size or info.img_size
    model = without_values(name, size, num_classes)
    fused = reparameterize(model)
    table = Table(title=name, show_header=False, title_justify="left", title_style="bold")
    forms = {"training form": model, "reparameterized": fused, "fully folded": reparameterize(model, fold="full")}
    counts = {form: f"{num_parameters(network):,}" for form, network in forms.items()}
    if len(set(counts.values())) == 1:
        table.add_row("parameters", counts["training form"])
    else:
        for form, count in counts.items():
            table.add_row(f"parameters, {form}", count)
    table.add_row("GMACs in evaluation", f"{gmacs_of(fused, 3, (size, size)):.3f} at {size} px")
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
