"""A run as training leaves it, made in a moment: a small network that knows colors by heart, too sure of itself."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from vitcli.data.mixing import Normalizer
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe
from vitcli.recipe.write import recipe_text
from vitcli.weights.manifest import write_manifest

CLASSES = ["blue", "green", "red"]
SIDE = 16
KEYS = {
    "model": "vit_ti_patch16", "image_resize": SIDE, "patch_size": 8, "depth": 1, "crop_pct": 1.0,
    "num_parallel_workers": 0, "batch_size": 32,
}  # fmt: skip


def make_images(root: Path, *, split: str = "val", seed: int = 0, per_class: int = 40) -> None:
    """Noise with a little of the class's color; a fourth of the images can be taken for another class."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        folder = root / split / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            color = generator.normal(100, 12, 3)
            color[2 - label] += 18
            pixels = color + generator.normal(0, 20, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")


def make_run(run: Path, data: Path, *, scale: float = 6.0, noise: float = 0.0, names: list[str] = CLASSES) -> Path:
    """A run on `data`, whose training split its classifier was fitted to by least squares, and multiplied by `scale`.

    The raw weights next to the average know nothing. noise: how far the classifier is from the fitted one.
    """
    torch.manual_seed(0)
    recipe = load_recipe(**KEYS, data_dir=data, device="cpu")
    network = create_model("vit_ti_patch16", num_classes=3, img_size=SIDE, patch_size=8, depth=1).eval()
    raw = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _fit_head(network, data / "train", scale)
    with torch.no_grad():
        network.head.weight += noise * torch.randn(network.head.weight.shape)
    folder = run / "checkpoints" / "step-00000010"
    folder.mkdir(parents=True)
    save_file(raw, folder / "model.safetensors")
    save_file(network.state_dict(), folder / "ema.safetensors")
    state = {"recipe": recipe.flat(), "class_names": names, "progress": {"best_step": 10, "best": 50.0}}
    (folder / "state.json").write_text(json.dumps(state, default=str))
    write_manifest(folder)
    (run / "recipe.yaml").write_text(recipe_text(recipe))
    return run


@torch.no_grad()
def _fit_head(network: nn.Module, folder: Path, scale: float) -> None:
    files = [(label, file) for label, name in enumerate(CLASSES) for file in sorted((folder / name).iterdir())]
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for _, file in files])
    recipe = load_recipe(**KEYS)
    seen: list[torch.Tensor] = []
    handle = network.to_latent.register_forward_hook(lambda *call: seen.append(call[-1]))
    network(Normalizer(recipe.augmentation.mean, recipe.augmentation.std, 3)(pixels))
    handle.remove()
    features = torch.cat([seen[0], torch.ones(len(files), 1)], 1).double()
    wanted = nn.functional.one_hot(torch.tensor([label for label, _ in files])).double()
    ridge = 1e-2 * torch.eye(features.shape[1], dtype=torch.float64)
    found = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted).float()
    network.head.weight.copy_(scale * found[:-1].T)
    network.head.bias.copy_(scale * found[-1])
