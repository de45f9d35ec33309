"""The network: its architecture, the weights it starts from, and what only some architectures have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vitcli import catalog
from vitcli.recipe.schema.key import Finding, Name, PathOrAddress, Probability, Section, key, option, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe

#: keys that describe the blocks of a plain ViT, and so have no effect on a `transformer` of another kind
OF_THE_BLOCKS = (
    "drop_path_rate", "drop_path_mode", "layer_scale_init", "qkv_bias", "attn_scale", "head_dim", "proj_drop_rate",
    "attn_drop_rate", "act_layer", "grad_checkpointing", "layer_decay",
)  # fmt: skip


class Model(Section):
    model: Name = key("fastvit_t8", "Architecture.", registry="models")
    num_classes: int | None = key(None, "Number of classes. Default: that of the data.", ge=1)
    in_channels: int = key(3, "Channels of the input image: 3 (color), 1 (gray), or those of the files.", ge=1, le=512)
    drop_rate: Probability = key(0.0, "Dropout before the head.")
    drop_path_rate: Probability = key(
        0.0, "Stochastic depth: probability of dropping the last block. It grows linearly from 0 in the first block."
    )
    layer_scale_init: float | None = key(None, "Initial value of the layer scale. Default: that of the variant.", gt=0)
    grad_checkpointing: bool = key(
        False, "Recompute activations in the backward pass: less memory, more time.", free=True
    )
    quantize: Literal["none", "int8_qat"] = key(
        "none",
        "int8_qat: fine-tune ckpt_path for an int8 deployment, with simulated int8 arithmetic in training and "
        "evaluation. `vitcli validate --quantize none` measures the float network of such a run.",
    )
    pretrained: bool = key(False, "Not supported, because nothing is downloaded automatically. Use ckpt_path.")
    ckpt_path: PathOrAddress | None = key(
        None,
        "Weights to start from: a run, a checkpoint, a file (.safetensors, .pth, .npz, .ckpt), https://…, "
        "hf-hub:org/name[/file][@revision], or timm:name; `vitcli models show NAME` lists published ones.",
        free=True,
    )
    from_scratch: bool = key(
        True, "Train from random values if there is no ckpt_path. Recipes for fine-tuning set it to false.", free=True
    )
    use_ema: bool | None = key(
        None, "Use the moving average of trained weights, or the raw ones. Default: the average if there is one."
    )
    reset_head: bool = key(False, "Start with a new classifier, even if the one in ckpt_path would fit.")
    pos_resample: Literal["timm", "torchvision", "transformers", "jax"] = key(
        "timm", "How position embeddings in ckpt_path are resized to another image or patch size."
    )

    # of some models only
    embed_dim: int | None = option("Width of the tokens.", ge=1)
    depth: int | None = option("Number of blocks.", ge=1)
    num_heads: int | None = option("Attention heads of each block.", ge=1)
    mlp_ratio: float | None = option("Hidden width of a block's MLP, divided by embed_dim.", gt=0)
    patch_size: int | None = option("Side of a patch in pixels.", ge=1)
    grid_size: int | None = option("Number of patches along each side of the image.", ge=1)
    patch_embed: Literal["linear", "conv", "spt", "hmlp"] | None = option(
        "Patch embedding: one linear layer, a stem of convolutions, shifted patches, or hMLP."
    )
    patch_norm: bool | None = option("LayerNorm before and after a linear patch embedding.")
    pos_embed: Literal["learned", "sincos2d", "none"] | None = option("Position embeddings.")
    global_pool: Literal["token", "avg", "max", "avgmax"] | None = option(
        "Input of the head: the class token, or the mean of the patches, their maximum, or the average of both."
    )
    fc_norm: bool | None = option("Pool the patches before the final norm, not after it. Default: true.")
    pre_norm: bool | None = option("LayerNorm before the first block, and a patch embedding without bias (CLIP).")
    class_token: bool | None = option("Use a class token. Default: only with global_pool token.")
    distilled: bool | None = option("Add a distillation token with its own head (DeiT).")
    reg_tokens: int | None = option("Number of register tokens.", ge=0)
    qkv_bias: bool | None = option("Bias of queries, keys and values.")
    attn_scale: Literal["head", "full", "learned"] | None = option(
        "Scale of the attention scores: from the width of a head, from the full width, or learned (LSA, where a token "
        "does not attend to itself).",
    )
    head_dim: int | None = option("Width of an attention head. Default: embed_dim / num_heads.", ge=1)
    norm_eps: float | None = option("Epsilon of the LayerNorms.", gt=0)
    act_layer: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] | None = option(
        "Activation of the feed-forward networks."
    )
    final_norm: bool | None = option("LayerNorm after the last block.")
    pre_logits: int | None = option("Width of a tanh layer before the head. 0: none.", ge=0)
    head_hidden: int | None = option("Hidden width of a two-layer head. 0: one layer.", ge=0)
    head_bias_init: float | None = option(
        "Initial value of the head's bias (for BCE about -log of the number of classes)."
    )
    fine_tune_from: int | None = option(
        "Keep a classifier with this many classes and add a linear layer from its logits to the classes of the data.",
        ge=1,
    )
    pos_drop_rate: Probability | None = option("Dropout after the position embeddings.")
    proj_drop_rate: Probability | None = option(
        "Dropout after each linear layer of a block, except queries, keys and values."
    )
    attn_drop_rate: Probability | None = option("Dropout of the attention weights.")
    drop_path_mode: Literal["zero", "skip"] | None = option(
        "Stochastic depth. zero: compute a dropped branch and zero it; skip: do not compute it."
    )
    patch_drop_rate: float | None = option("Share of the patches to drop in training.", ge=0, lt=1)
    patch_drop_mode: Literal["drop", "zero"] | None = option(
        "Remove dropped patches, which is faster, or set them to zero."
    )
    transformer: Name | None = option(
        "Blocks of another kind, such as linformer or those of a plugin.", registry="transformers"
    )

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        if self.pretrained:
            help = "set `pretrained: false` and give the weights with ckpt_path"
            yield "pretrained", "pretrained weights are not downloaded automatically", help
        if self.quantize != "none" and recipe.system.amp in ("bf16", "fp16", "fp8"):
            message = f"int8 is simulated in float32, but amp {recipe.system.amp} would round the numbers again"
            yield "amp", message, "set `amp: off` for this run; the run it starts from may use any amp"
        yield from self._own_keys()

    def _own_keys(self) -> Iterator[Finding]:
        own = [name for name in type(self).model_fields if self.noted(name)["own"]]
        given = [name for name in own if getattr(self, name) is not None]
        options = catalog.model_info(self.model).options if given else ()
        taken = ", ".join(name for name in own if name in options)
        for name in given:
            if name not in options:
                yield name, f"{self.model} has no `{name}`", f"it has {taken}" if taken else f"remove `{name}`"

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if self.transformer:
            yield from without_effect(recipe, *OF_THE_BLOCKS, why=": `transformer` replaces the blocks")
