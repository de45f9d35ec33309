"""Native folders of networks that a test made, written without the comparison that `vitcli export` makes."""

import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.support.commands import environment
from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import NewArtifact
from vitcli.deploy.formats import Order, open_format
from vitcli.deploy.key_values import from_text, to_text
from vitcli.deploy.network import Deployed, for_runtime
from vitcli.image_size import height_and_width
from vitcli.recipe.schema import Augmentation
from vitcli.weights.manifest import sha256_of

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def artifact(model: nn.Module, folder: Path, precision: str, *, takes_pixels: bool = False) -> Path:
    """Exported as `vitcli export` does it, without the gate."""
    size, channels = getattr(model, "img_size", 32), getattr(model, "in_chans", 3)
    height, width = height_and_width(size)
    form = open_format("native", to="export")
    example = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    example = example if takes_pixels else example.permute(0, 3, 1, 2).float()
    normalization = (MEAN[:channels], STD[:channels]) if takes_pixels else None
    with NewArtifact(folder) as new:
        network = Deployed(for_runtime(model), normalization=normalization).eval()
        order = Order(network=network, example=example, folder=new.folder, precision=precision, output="logits")
        form.export(order)
        facts = {
            "format": "native", "file": form.FILE, "precision": precision, "device": "cpu", "model": "m",
            "input": {"dtype": "uint8" if takes_pixels else "float32", "layout": "NHWC" if takes_pixels else "NCHW",
                      "batch": None},
            "output": "probabilities" if takes_pixels else "logits", "activation": "softmax", "thresholds": None,
            "preprocessing": {"image_resize": size, "in_channels": channels, "crop_pct": 1.0, "crop_mode": "center",
                              "interpolation": "bicubic", "pixel_range": "auto",
                              "mean": MEAN[:channels], "std": STD[:channels]},
        }  # fmt: skip
        new.write(facts, [f"class {i}" for i in range(5)], None)
        new.finish(facts, "")
    return folder


def input_of(model: nn.Module, photo: Path) -> torch.Tensor:
    """(1, C, H, W) float64, normalized."""
    channels = getattr(model, "in_chans", 3)
    augmentation = Augmentation(image_resize=getattr(model, "img_size", 32), crop_pct=1.0, interpolation="bicubic")
    seen = build_eval_transform(augmentation, in_channels=channels)(Image.open(photo))
    pixels = torch.from_numpy(np.array(seen)).double().view(*height_and_width(augmentation.image_resize), channels)
    mean, std = torch.tensor(MEAN[:channels]).double(), torch.tensor(STD[:channels]).double()
    return ((pixels / 255 - mean) / std).permute(2, 0, 1).unsqueeze(0)


def write_noise(path: Path) -> Path:
    """A picture of 97 x 80 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((97, 80), Image.Resampling.BICUBIC).save(path)
    return path


def resigned(folder: Path, text: str | None = None) -> None:
    """Write model.txt, if `text` is given, and the description that vouches for all files as they are now."""
    if text is not None:
        (folder / "model.txt").write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    values = from_text((folder / "artifact.txt").read_text())
    names = "model.txt", "model.safetensors", "labels.txt"
    values |= {f"sha256.{name}": sha256_of(folder / name) for name in names}
    (folder / "artifact.txt").write_text(to_text(values))


def run(program: Path, *words: object, kernels: str = "") -> subprocess.CompletedProcess:
    """kernels: of the C++ program; the fastest of this processor by default."""
    command = [program, *map(str, words)]
    env = environment(VITCLI_KERNELS=kernels)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False, env=env)
