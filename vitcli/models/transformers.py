"""Replacements for the blocks of a plain ViT: modules (B, N, D) -> (B, N, D) from other packages, chosen by name.

    linformer   keys and values projected from N to 256 tokens (Wang et al. 2020, arXiv 2006.04768)
    nystrom     attention through 256 landmarks (Xiong et al. 2021, arXiv 2102.03902)
    performer   softmax by orthogonal random features (Choromanski et al. 2021, arXiv 2009.14794)

All three cost O(N) instead of O(N^2). They come from the packages of `pip install 'vitcli[efficient]'`; plugins add
others. Nystrom's pseudo-inverse is iterated from a start that depends on the whole batch, so an image's logits change
slightly (1e-4 of their size) with the other images.
"""

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitcli import catalog
from vitcli.errors import UsageError, plugin_errors_in_words


@dataclass(frozen=True)
class TransformerShape:
    """The sizes that the blocks must have."""

    embed_dim: int  # D, width of a token
    depth: int  # number of blocks
    num_heads: int
    num_tokens: int  # N: patches and prefix tokens (class, distillation, registers)
    mlp_ratio: float  # width of an MLP's hidden layer / embed_dim


def build_transformer(name: str | nn.Module, shape: TransformerShape) -> nn.Module:
    """The module (B, N, D) -> (B, N, D) that `name` stands for in the catalog, or `name` itself.

    Raises:
        UsageError: unknown name, its package is not installed, or it cannot have this shape.
    """
    if isinstance(name, nn.Module):
        return name
    build = catalog.load("transformers", name)
    if catalog.is_ours(build.__module__):
        return build(shape)
    with plugin_errors_in_words(build.__module__, f"{name} is called with a TransformerShape"):
        built = build(shape)
    if not isinstance(built, nn.Module):
        message = f"the transformer {name} of a plugin builds {built!r}, which is not a torch module"
        raise UsageError(message, help="return an nn.Module")
    return built


def build_linformer(shape: TransformerShape) -> nn.Module:
    _check("linformer", shape)
    return _package("linformer").Linformer(
        dim=shape.embed_dim,
        seq_len=shape.num_tokens,
        depth=shape.depth,
        heads=shape.num_heads,
        k=min(256, shape.num_tokens),
    )


def build_nystrom(shape: TransformerShape) -> nn.Module:
    _check("nystrom", shape)
    return _package("nystrom_attention").Nystromformer(
        dim=shape.embed_dim,
        depth=shape.depth,
        heads=shape.num_heads,
        dim_head=shape.embed_dim // shape.num_heads,
        num_landmarks=min(256, shape.num_tokens),  # the tokens are padded to a multiple of them
    )


def build_performer(shape: TransformerShape) -> nn.Module:
    _check("performer", shape)
    performer = _package("performer_pytorch").Performer(
        dim=shape.embed_dim, depth=shape.depth, heads=shape.num_heads, dim_head=shape.embed_dim // shape.num_heads
    )
    # `net` is the blocks. The module around it redraws the random features every 1000 calls, which an average of the
    # weights could not follow, and holds the blocks a second time under other names.
    return performer.net


def _check(name: str, shape: TransformerShape) -> None:
    if shape.mlp_ratio != 4:
        raise UsageError(f"{name} has mlp_ratio 4, not {shape.mlp_ratio:g}", help="remove mlp_ratio")
    if shape.embed_dim % shape.num_heads:
        raise UsageError(f"embed_dim {shape.embed_dim} cannot be split into {shape.num_heads} heads")


def _package(name: str) -> Any:
    """The optional package `name`; warnings of its import are suppressed, because users cannot act on them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        needed = name.replace("_", "-")
        raise UsageError(f"this needs the package {needed} ({error})", help="pip install 'vitcli[efficient]'") from None
