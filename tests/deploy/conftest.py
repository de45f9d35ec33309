"""A network with every kind of layer, small enough to be exported in a second, and a fixture that exports it."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vitcli.deploy.formats import Order, Setting, open_format
from vitcli.deploy.network import DTYPES, Deployed, example_input, for_runtime
from vitcli.deploy.plan import ExportPlan
from vitcli.models.fastvit import FastViT

SIZE, CLASSES = 32, 5
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def stir(model: nn.Module) -> nn.Module:
    """`model` in eval mode, with statistics and scales as after training, so that no branch vanishes."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var") or "gamma" in name:
                tensor.copy_(0.5 + noise)
            elif name.endswith("running_mean"):
                tensor.copy_(noise - 0.5)
    return model.eval()


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    return stir(
        FastViT(depths=(1, 1, 1, 1), dim=16, mlp_ratio=2, attention=True, num_classes=CLASSES, layer_scale_init=0.5)
    )


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(6, SIZE, SIZE, 3) uint8"""
    return np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def expected(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Probabilities by the source, in training form, computed in float64 from the definition."""
    images = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    with torch.no_grad():
        logits = copy.deepcopy(network).double()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return logits.softmax(-1).numpy()


@pytest.fixture(scope="session")
def exported(network: nn.Module, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(format, precision) -> the folder with the exported file; the same question is answered once."""

    @cache
    def export(name: str, precision: str, model: nn.Module = network, keep_float: tuple[str, ...] = ()) -> Path:
        form = open_format(name, to="export")
        dtype = DTYPES[precision] if precision in form.CASTS else torch.float32
        given = torch.from_numpy(pixels)
        order = Order(
            network=Deployed(for_runtime(model), normalization=(MEAN, STD), dtype=dtype).eval(),
            example=example_input(ExportPlan(name, batch=form.BATCH), SIZE, 3),
            folder=tmp_path_factory.mktemp(name),
            precision=precision,
            output="probabilities",
            batch=form.BATCH,
            calibration=list(given.split(form.BATCH or len(given))) if precision == "int8" else [],
            keep_float=keep_float,
        )
        form.export(order)
        return order.folder

    return export


@pytest.fixture(scope="session")
def run_exported(exported: Callable[..., Path], pixels: np.ndarray) -> Callable[..., np.ndarray]:
    """(format, precision) -> the probabilities that the exported file gives for `pixels`, run by its own runtime."""

    def run(name: str, precision: str, *model: nn.Module) -> np.ndarray:
        form = open_format(name, to="export")
        session = form.open_session(exported(name, precision, *model) / form.FILE, Setting(precision))
        step = form.BATCH or len(pixels)
        return np.concatenate([session(pixels[i : i + step]) for i in range(0, len(pixels), step)])

    return run
