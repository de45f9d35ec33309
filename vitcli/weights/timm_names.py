"""What a name of timm's says of a network and its tensors do not show: heads, epsilon of the norms, activation.

Source: timm 1.0.31, its modules vision_transformer, deit and fastvit.
"""

from fnmatch import fnmatchcase
from typing import Any

#: the first words of the names of plain ViTs and FastViTs
_PLAIN = ("vit_", "deit_", "deit3_", "flexivit_", "eva_large_", "beit3_", "aimv2_", "test_vit", "fastvit_")
#: words in the names of other networks, some of which have the same tensors -> what is different
_OTHERS = {
    **dict.fromkeys(("relpos", "srelpos"), "relative positions"),
    **dict.fromkeys(("rope", "dinov3", "sapiens2", "lingbot", "pe"), "rotary positions"),
    **dict.fromkeys(("r", "r26", "r50", "resnet26d", "resnet50d"), "a ResNet before it"),
    **dict.fromkeys(("mci", "mci0", "mci1", "mci2", "mci3", "mci4"), "the stages of MobileCLIP"),
    "rpn": "norms after the branches",
}
_HEADS = {
    "tiny": 3, "xsmall": 4, "wee": 4, "dwee": 4, "little": 5, "dlittle": 5, "small": 6, "medium": 8, "mediumd": 8,
    "betwixt": 10, "base": 12, "so150m2": 13, "so150m": 14, "intern300m": 16, "so400m": 16, "large": 16, "huge": 16,
    "giant": 16, "giantopt": 16, "gigantic": 16,
}  # fmt: skip
#: pattern of names -> facts; later rows are stronger
_FACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("*", {"norm_eps": 1e-6, "act_layer": "gelu"}),
    *((f"*_{size}_*", {"num_heads": heads}) for size, heads in _HEADS.items()),
    ("vit_base_patch??_plus_*", {"num_heads": 14}),
    ("vit_base_patch16_gap_*", {"num_heads": 16}),
    *((f"vit_giant_*_{work}_*", {"num_heads": 24}) for work in ("dinov2", "tipsv2", "radio")),
    ("test_vit*", {"num_heads": 2}),
    ("test_vit[34]_*", {"num_heads": 3}),
    *((f"{names}_*", {"norm_eps": 1e-5}) for names in ("*_clip", "beit3", "aimv2")),
    ("*_quickgelu_*", {"act_layer": "quick_gelu"}),
    *((names, {"act_layer": "gelu_tanh"}) for names in (
        "vit_base_patch32_siglip_*", "vit_large_patch16_siglip_*512_*", "vit_so400m_patch16_siglip_*", "vit_giantopt_*",
    )),
)  # fmt: skip


def facts_of(architecture: str) -> dict[str, Any]:
    """The options of `create_model` that belong to timm's name of a plain ViT; none for other names."""
    if not architecture.startswith(_PLAIN):
        return {}
    found: dict[str, Any] = {}
    for pattern, facts in _FACTS:
        found |= facts if fnmatchcase(f"{architecture}_", pattern) else {}
    return found


def difference_of(architecture: str) -> str | None:
    """What makes the network of this name another one than a plain ViT or FastViT; None: nothing is known to."""
    if not architecture.startswith(_PLAIN):
        return "it is not a plain ViT or a FastViT"
    return next((f"it has {_OTHERS[word]}" for word in architecture.split("_") if word in _OTHERS), None)
