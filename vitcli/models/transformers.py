"""Blocks that can stand in for those of a plain ViT: modules (B, N, D) -> (B, N, D) of others, chosen by name.

    linformer   keys and values projected from N to 256 tokens (Wang et al. 2020, arXiv 2006.04768)
    nystrom     attention through 256 landmarks (Xiong et al. 2021, arXiv 2102.03902)
    performer   softmax by orthogonal random features (Choromanski et al. 2021, arXiv 2009.14794)

All three cost O(N) instead of O(N^2). They come from the packages of `pip install 'vitcli[efficient]'`; a plugin adds
its own with a table `TRANSFORMERS` like the one at the end of this file. Nystrom's pseudo-inverse is iterated from a
start that depends on the whole batch, so an image's logits change slightly (1e-4 of their size) with its neighbors.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vitcli.errors import UsageError
from vitcli.recipe.names import files_of
from vitcli.recipe.plugins import imported, plugin_errors_in_words


@dataclass(frozen=True)
class TransformerShape:
    """What the blocks must fit."""

    embed_dim: int  # D, width of a token
    depth: int  # number of blocks
    num_heads: int
    num_tokens: int  # N: patches and prefix tokens (class, distillation, registers)
    mlp_ratio: float  # width of an MLP's hidden layer / embed_dim


def build_transformer(name: str, shape: TransformerShape) -> nn.Module:
    """The module (B, N, D) -> (B, N, D) that `name` stands for in `TRANSFORMERS` or in a plugin's table.

    Raises:
        UsageError: unknown name, its package is not installed, or it cannot have this shape.
    """
    files = files_of("transformers")
    if name not in files:
        help = f"there are {', '.join(files)}; one of a plugin needs --plugin FILE"
        raise UsageError(f"no transformer is named {name!r}", help=help)
    if files[name] != Path(__file__):
        return _of_a_plugin(files[name], name, shape)
    if shape.mlp_ratio != 4:
        raise UsageError(f"{name} has mlp_ratio 4, not {shape.mlp_ratio:g}", help="leave mlp_ratio out")
    if shape.embed_dim % shape.num_heads:
        raise UsageError(f"embed_dim {shape.embed_dim} cannot be split into {shape.num_heads} heads")
    return TRANSFORMERS[name](shape)


def _of_a_plugin(file: Path, name: str, shape: TransformerShape) -> nn.Module:
    with plugin_errors_in_words(file, f"TRANSFORMERS[{name!r}] is called with a TransformerShape"):
        built = imported(file).TRANSFORMERS[name](shape)
    if not isinstance(built, nn.Module):
        raise UsageError(f"{file}: {name} builds {built!r}, which is no torch module", help="return an nn.Module")
    return built


def _linformer(shape: TransformerShape) -> nn.Module:
    return _package("linformer").Linformer(
        dim=shape.embed_dim,
        seq_len=shape.num_tokens,
        depth=shape.depth,
        heads=shape.num_heads,
        k=min(256, shape.num_tokens),
    )


def _nystrom(shape: TransformerShape) -> nn.Module:
    return _package("nystrom_attention").Nystromformer(
        dim=shape.embed_dim,
        depth=shape.depth,
        heads=shape.num_heads,
        dim_head=shape.embed_dim // shape.num_heads,
        num_landmarks=min(256, shape.num_tokens),  # the tokens are padded to a multiple of them
    )


def _performer(shape: TransformerShape) -> nn.Module:
    performer = _package("performer_pytorch").Performer(
        dim=shape.embed_dim, depth=shape.depth, heads=shape.num_heads, dim_head=shape.embed_dim // shape.num_heads
    )
    # `net` is the blocks. The module around them draws the random features anew every 1000 calls, which an average of
    # the weights could not follow, and holds the blocks a second time, under other names.
    return performer.net


def _package(name: str) -> Any:
    """The optional package `name`; what it warns of when it is imported is for its authors to read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        needed = name.replace("_", "-")
        raise UsageError(f"this needs the package {needed} ({error})", help="pip install 'vitcli[efficient]'") from None


TRANSFORMERS: dict[str, Callable[[TransformerShape], nn.Module]] = {
    "linformer": _linformer,
    "nystrom": _nystrom,
    "performer": _performer,
}
