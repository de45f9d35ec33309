"""Small ViTs and photographs, for programs that run exported folders without Python."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from vitcli.commands.export import ExportPlan, export
from vitcli.data.decode import open_image
from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import open_artifact
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe

CLASSES, MEAN, STD = 7, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
#: recipe keys of ViTs
NETWORKS: dict[str, dict[str, Any]] = {
    "token": {"image_resize": 48, "depth": 2},
    "average": {"image_resize": (32, 48), "patch_size": 8, "depth": 1, "global_pool": "avg", "reg_tokens": 3},
}


def network(name: str) -> torch.nn.Module:
    """The same on every call; its logits differ by several units."""
    torch.manual_seed(0)
    keys = NETWORKS[name] | {"img_size": NETWORKS[name]["image_resize"]}
    del keys["image_resize"]
    model: Any = create_model("vit_ti_patch16", num_classes=CLASSES, **keys)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model.eval()


def exported(name: str, folder: Path, **words: Any) -> Path:
    """The network `name` as a native folder below `folder`; words: of ExportPlan."""
    save_file(network(name).state_dict(), folder / "weights.safetensors")
    keys = NETWORKS[name] | {"model": "vit_ti_patch16", "num_classes": CLASSES, "mean": MEAN, "std": STD}
    export(folder / "weights.safetensors", folder / "out", ExportPlan("native", **words), recipe=load_recipe(**keys))
    return folder / "out"


def write_photos(folder: Path) -> list[Path]:
    """Three files."""
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(values).resize((120, 90), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def seen(artifact: Path, photo: Path) -> np.ndarray:
    """(1, H, W, 3), the pixels that the network sees."""
    return np.array(build_eval_transform(open_artifact(artifact).preprocessing)(open_image(photo)))[None]


def expected_logits(name: str, pixels: np.ndarray) -> np.ndarray:
    """(num_classes,) by PyTorch in float64, of pixels (1, H, W, 3)."""
    images = torch.from_numpy((pixels / 255 - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return network(name).double()(images)[0].numpy()
