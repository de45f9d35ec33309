"""Published weights: addresses for the models of the registry, and the tags that timm's names have by default.

Nothing is downloaded here; `fetch` turns an address into a file. Tags and licenses are those of timm 1.0.31, accuracies
those of its results-imagenet.csv.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Weights that can be given as `--ckpt_path`."""

    address: str
    license: str
    top1: float | None = None  #: published, percent on ImageNet-1k; None: not known here


_APPLE, _APACHE = "Apple's FastViT license", "Apache 2.0"
_FASTVIT_TOP1 = {
    # variant: (plain, distilled)
    "t8": (76.18, 77.17),
    "t12": (79.28, 80.36),
    "s12": (79.88, 81.07),
    "sa12": (80.85, 81.84),
    "sa24": (82.71, 83.37),
    "sa36": (83.50, 84.03),
    "ma36": (83.88, 84.61),
}
_VIT_TOP1: dict[str, dict[str, float | None]] = {
    "vit_ti_patch16": {"vit_tiny_patch16_224.augreg_in21k_ft_in1k": None, "deit_tiny_patch16_224.fb_in1k": None},
    "vit_s_patch32": {"vit_small_patch32_224.augreg_in21k_ft_in1k": 76.01},
    "vit_s_patch16": {
        "vit_small_patch16_224.augreg_in21k_ft_in1k": 81.40,
        "vit_small_patch16_224.augreg_in1k": 78.84,
        "deit3_small_patch16_224.fb_in1k": None,
    },
    "vit_s_patch14": {"vit_small_patch14_dinov2.lvd142m": None},
    "vit_m_patch16": {"deit3_medium_patch16_224.fb_in1k": None},
    "vit_b_patch32": {
        "vit_base_patch32_224.augreg_in21k_ft_in1k": 80.73,
        "vit_base_patch32_224.augreg_in1k": 74.91,
    },
    "vit_b_patch16": {
        "vit_base_patch16_224.augreg2_in21k_ft_in1k": 85.11,
        "vit_base_patch16_224.augreg_in21k_ft_in1k": 84.53,
        "vit_base_patch16_224.augreg_in1k": 79.15,
        "deit3_base_patch16_224.fb_in1k": None,
    },
    "vit_b_patch14": {"vit_base_patch14_dinov2.lvd142m": None},
    "vit_l_patch16": {"vit_large_patch16_224.augreg_in21k_ft_in1k": 85.86},
    "vit_l_patch14": {"vit_large_patch14_dinov2.lvd142m": None},
    "vit_h_patch14": {"deit3_huge_patch14_224.fb_in1k": None},
}

#: timm's default tag -> the names that have it; only networks that vitcli has
DEFAULT_TAGS = {
    "1200ep_in1k": "flexivit_base flexivit_large flexivit_small",
    "apple_in1k": "fastvit_ma36 fastvit_s12 fastvit_sa12 fastvit_sa24 fastvit_sa36 fastvit_t8 fastvit_t12",
    "augreg2_in21k_ft_in1k": "vit_base_patch8_224 vit_base_patch16_224",
    "augreg_in21k_ft_in1k": (
        "vit_base_patch16_384 vit_base_patch32_224 vit_base_patch32_384 vit_large_patch16_224 "
        "vit_large_patch16_384 vit_small_patch16_224 vit_small_patch16_384 vit_small_patch32_224 "
        "vit_small_patch32_384 vit_tiny_patch16_224 vit_tiny_patch16_384"
    ),
    "c_radio": (
        "vit_base_patch16_radio_v3 vit_giant_patch16_radio_v3 vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 "
        "vit_large_patch16_radio_v3 vit_so400m_patch16_radio_v4"
    ),
    "datacompxl": "vit_base_patch32_clip_256",
    "dfn5b": "vit_huge_patch14_clip_378",
    "dino": "vit_small_patch8_224",
    "fb_in1k": (
        "deit3_base_patch16_224 deit3_base_patch16_384 deit3_huge_patch14_224 deit3_large_patch16_224 "
        "deit3_large_patch16_384 deit3_medium_patch16_224 deit3_small_patch16_224 deit3_small_patch16_384 "
        "deit_base_distilled_patch16_224 deit_base_distilled_patch16_384 deit_base_patch16_224 "
        "deit_base_patch16_384 deit_small_distilled_patch16_224 deit_small_patch16_224 "
        "deit_tiny_distilled_patch16_224 deit_tiny_patch16_224"
    ),
    "in21k": "vit_base_patch16_224_miil",
    "in22k_ft_in22k_in1k": "eva_large_patch14_196 eva_large_patch14_336",
    "laion2b": "vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224",
    "laion2b_ft_in12k_in1k": (
        "vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_clip_224 vit_base_patch32_clip_384 "
        "vit_base_patch32_clip_448 vit_huge_patch14_clip_224 vit_huge_patch14_clip_336 vit_large_patch14_clip_224 "
        "vit_large_patch14_clip_336"
    ),
    "laion400m_e32": "vit_base_patch16_plus_clip_240",
    "lvd142m": (
        "vit_base_patch14_dinov2 vit_base_patch14_reg4_dinov2 vit_large_patch14_dinov2 "
        "vit_large_patch14_reg4_dinov2 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2"
    ),
    "metaclip2_worldwide": "vit_gigantic_patch14_clip_378",
    "ogvl_dist": "vit_intern300m_patch14_448",
    "orig_in21k": "vit_huge_patch14_224 vit_large_patch32_224",
    "orig_in21k_ft_in1k": "vit_large_patch32_384",
    "pali_mix": "vit_so400m_patch14_siglip_gap_448",
    "pali_pt": "vit_so400m_patch14_siglip_gap_896",
    "sbb2_e200_in12k_ft_in1k": (
        "vit_betwixt_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_384 vit_mediumd_patch16_reg4_gap_256 "
        "vit_mediumd_patch16_reg4_gap_384"
    ),
    "sbb_e200_in12k_ft_in1k": (
        "vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384 vit_so150m2_patch16_reg1_gap_448"
    ),
    "sbb_e250_in12k_ft_in1k": "vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384",
    "sbb_in12k_ft_in1k": "vit_little_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256",
    "sbb_in1k": (
        "vit_betwixt_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg1_gap_256 "
        "vit_wee_patch16_reg1_gap_256"
    ),
    "sw_in12k": "vit_medium_patch16_gap_240",
    "sw_in12k_ft_in1k": "vit_medium_patch16_gap_256 vit_medium_patch16_gap_384",
    "tinyclip_laion400m": "vit_betwixt_patch32_clip_224 vit_medium_patch32_clip_224",
    "tinyclip_yfcc15m": "vit_medium_patch16_clip_224 vit_xsmall_patch16_clip_224",
    "v2_webli": (
        "vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384 "
        "vit_base_patch16_siglip_gap_512 vit_base_patch32_siglip_gap_256 vit_giantopt_patch16_siglip_gap_256 "
        "vit_giantopt_patch16_siglip_gap_384 vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384 "
        "vit_large_patch16_siglip_gap_512 vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 "
        "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512"
    ),
    "webli": (
        "vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2 vit_so400m_patch14_reg1_tipsv2 "
        "vit_so400m_patch14_siglip_gap_384"
    ),
}


def published(model: str) -> list[Published]:
    """Well-known weights for a model of the registry; empty if none are known."""
    variant = model.removeprefix("fastvit_")
    if variant in _FASTVIT_TOP1:
        tags = zip(("apple_in1k", "apple_dist_in1k"), _FASTVIT_TOP1[variant], strict=True)
        return [Published(f"timm:{model}.{tag}", _APPLE, top1) for tag, top1 in tags]
    return [Published(f"timm:{name}", _APACHE, top1) for name, top1 in _VIT_TOP1.get(model, {}).items()]


def with_tag(name: str) -> str:
    """timm's `name`, completed by its default tag if it has none and one is known."""
    tag = next((tag for tag, names in DEFAULT_TAGS.items() if name in names.split()), None)
    return f"{name}.{tag}" if tag else name
