"""The reference implementation of the native format: what a program in any language computes, in PyTorch, plainly.

It reads nothing but the folder's own files, and the gate of `vitcli export` runs it. Activations are (B, N, D) or
(B, H, W, C), channels last. A matrix product rounds its input to the type of its weights: to bfloat16, or to int8 with
one scale per row; sums, norms, softmax and activations are float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcli.deploy.native.folder import Description
from vitcli.deploy.native.writer import LARGEST, rounded_rows

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}
#: the most products of int8 numbers whose sum stays below 2^24: float32 holds whole numbers up to there exactly
_MOST_EXACT = 2**24 // LARGEST**2


class Reference:
    """The network `described` as a function of images. ValueError or KeyError if a part of it is missing."""

    def __init__(self, described: Description) -> None:
        self._described, self._values = described, described.values
        self._forward = {"vit": self._vit, "fastvit": self._fastvit}[described.values["architecture"]]
        self._tensors = {name: tensor.float() for name, tensor in described.tensors.items()}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, C), or normalized float32 (B, C, H, W) -> float32 (B, num_classes)."""
        if self._values["input"] == "pixels":
            scale, shift = (torch.tensor(self._described.numbers(f"pixel_{key}")) for key in ("scale", "shift"))
            x = images.float() * scale + shift
        else:
            x = images.permute(0, 2, 3, 1).contiguous()
        logits = self._forward(x)
        activation = {"none": lambda x: x, "softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid}
        return activation[self._values["activation"]](logits)

    def _vit(self, x: Tensor) -> Tensor:
        x = _patches(x, self._int("patch_size"))  # (B, N, p * p * C)
        if self._int("norm_patch_pixels"):
            x = self._normalized(x)
        x = self._norm_if("patch_norm", self._linear(x, "patch")) + self._tensors["positions"]
        if self._int("num_prefix_tokens"):
            x = torch.cat([self._tensors["prefix"].expand(len(x), -1, -1), x], dim=1)
        x = self._norm_if("norm_pre", x)
        act = _ACTIVATIONS[self._values["mlp_activation"]]
        for number in range(self._int("depth")):
            block = f"blocks.{number}"
            allowed = None if self._int("attend_to_self") else _all_but_self(x.shape[1])
            x = x + self._attention(self._normalized(x), block, allowed)
            x = x + self._linear(act(self._linear(self._normalized(x), f"{block}.fc1")), f"{block}.fc2")
        return self._classified(self._pooled(x))

    def _pooled(self, x: Tensor) -> list[Tensor]:
        """What the heads classify, (B, D) each."""
        is_after = self._int("norm_pooled")
        x = x if is_after else self._norm_if("norm", x)
        patches = x[:, self._int("num_prefix_tokens") :]
        match self._values["pool"]:
            case "token":
                pooled = list(x[:, : self._int("num_pooled_tokens")].unbind(1))
            case "avg":
                pooled = [patches.mean(1)]
            case "max":
                pooled = [patches.amax(1)]
            case _:
                pooled = [(patches.mean(1) + patches.amax(1)) / 2]
        return [self._norm_if("norm", token) for token in pooled] if is_after else pooled

    def _classified(self, pooled: list[Tensor]) -> Tensor:
        if self._int("pre_logits"):
            pooled = [self._linear(token, "pre_logits").tanh() for token in pooled]
        logits = self._head(pooled[0], "head")
        if self._int("distilled"):
            logits = (logits + self._head(pooled[1], "head_dist")) / 2
        return self._linear(logits, "fine_tune") if self._int("fine_tune") else logits

    def _head(self, x: Tensor, name: str) -> Tensor:
        if self._int("head_layers") == 1:
            return self._linear(x, name)
        return self._linear(F.gelu(self._linear(x, f"{name}.fc1")), f"{name}.fc2")

    def _fastvit(self, x: Tensor) -> Tensor:
        x = F.gelu(self._linear(_windows(x, 3, stride=2), "stem.0"))
        x = F.gelu(self._depthwise(x, "stem.1", stride=2))
        x = F.gelu(self._linear(x, "stem.2"))
        attends = self._described.integers("attention_stages")
        for stage, depth in enumerate(self._described.integers("depths")):
            name = f"stages.{stage}"
            if stage > 0:
                x = F.gelu(self._linear(self._depthwise(x, f"{name}.down", stride=2), f"{name}.widen"))
            if attends[stage]:
                x = self._depthwise(x, f"{name}.positions")
            for number in range(depth):
                x = self._fastvit_block(x, f"{name}.blocks.{number}", has_attention=bool(attends[stage]))
        x = self._depthwise(x, "final")
        gate = self._linear(F.relu(self._linear(x.mean((1, 2)), "gate.fc1")), "gate.fc2").sigmoid()  # (B, C)
        return self._linear(F.gelu(x * gate[:, None, None]).mean((1, 2)), "head")

    def _fastvit_block(self, x: Tensor, name: str, *, has_attention: bool) -> Tensor:
        if has_attention:
            tokens = x.flatten(1, 2)
            x = (tokens + self._attention(tokens, name, None)).view_as(x)
        else:
            x = self._depthwise(x, f"{name}.mixer")
        hidden = F.gelu(self._linear(self._depthwise(x, f"{name}.conv"), f"{name}.fc1"))
        return x + self._linear(hidden, f"{name}.fc2")

    def _attention(self, x: Tensor, name: str, allowed: Tensor | None) -> Tensor:
        """Of tokens (B, N, D); the factor of the scores is part of the queries' weights."""
        qkv = self._linear(x, f"{name}.qkv").unflatten(-1, (3, -1, self._int("head_dim")))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        scores = q @ k.transpose(-1, -2)
        scores = scores if allowed is None else scores.masked_fill(~allowed, -math.inf)
        return self._linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{name}.proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        """(..., in) -> (..., out), in the type of the weights."""
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        match self._described.tensors[f"{name}.weight"].dtype:
            case torch.bfloat16:
                return F.linear(x.bfloat16().float(), weight, bias)
            case torch.int8:
                rounded, scale = rounded_rows(x)
                exact = torch.float32 if weight.shape[1] <= _MOST_EXACT else torch.float64
                sums = F.linear(rounded.to(exact), weight.to(exact)).float()
                return sums * scale * self._tensors[f"{name}.scale"] + bias
            case _:
                return F.linear(x, weight, bias)

    def _depthwise(self, x: Tensor, name: str, *, stride: int = 1) -> Tensor:
        """(B, H, W, C) -> (B, H/stride, W/stride, m * C): output channel o is a filter of input channel o mod C."""
        kernel = self._tensors[f"{name}.weight"]  # (k, k, m * C)
        channels, size = x.shape[-1], len(kernel)
        parts = kernel.permute(2, 0, 1).unsqueeze(1).split(channels)  # m of (C, 1, k, k)
        maps = x.permute(0, 3, 1, 2)
        found = [F.conv2d(maps, part, stride=stride, padding=size // 2, groups=channels) for part in parts]
        return torch.cat(found, dim=1).permute(0, 2, 3, 1) + self._tensors[f"{name}.bias"]

    def _norm_if(self, name: str, x: Tensor) -> Tensor:
        """LayerNorm over the last axis with weight and bias, if the network has the one of this name."""
        if not self._int(name):
            return x
        return self._normalized(x) * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]

    def _normalized(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=float(self._values["norm_eps"]))

    def _int(self, key: str) -> int:
        return int(self._values[key])


def _patches(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B, N, p * p * C): row by row, each ordered (row, column, channel)."""
    x = x.unflatten(1, (-1, size)).unflatten(3, (-1, size))  # (B, rows, p, columns, p, C)
    return x.transpose(2, 3).flatten(3).flatten(1, 2)


def _windows(x: Tensor, size: int, *, stride: int) -> Tensor:
    """(B, H, W, C) -> (B, H/stride, W/stride, k * k * C): what a convolution with zero padding sees."""
    margin = size // 2
    x = F.pad(x, (0, 0, margin, margin, margin, margin))
    x = x.unfold(1, size, stride).unfold(2, size, stride)  # (B, H', W', C, k, k)
    return x.permute(0, 1, 2, 4, 5, 3).flatten(3)


def _all_but_self(count: int) -> Tensor:
    """(N, N) bool: no token attends to itself, unless it is alone."""
    return ~torch.eye(count, dtype=torch.bool) if count > 1 else torch.ones(1, 1, dtype=torch.bool)
