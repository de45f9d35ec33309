"""The addresses of published weights are those that timm knows, with its tags and licenses."""

import pytest
import timm
from timm.models import get_pretrained_cfg, list_pretrained

from vitcli.models.registry import list_models
from vitcli.models.vit import VARIANTS
from vitcli.weights.published import DEFAULT_TAGS, published, with_tag

LICENSES = {"fastvit-license": "Apple's FastViT license", "apache-2.0": "Apache 2.0"}


def test_default_tags_are_timms():
    names = [name for of in DEFAULT_TAGS.values() for name in of.split()]
    assert len(names) == len(set(names)) > 100
    for name in names:
        assert with_tag(name) == f"{name}.{get_pretrained_cfg(name).tag}"
        assert get_pretrained_cfg(name).hf_hub_id in (f"timm/{with_tag(name)}", "timm/")


def test_other_names_stay_as_they_are():
    assert with_tag("fastvit_t8.apple_dist_in1k") == "fastvit_t8.apple_dist_in1k"
    assert with_tag("swin_tiny_patch4_window7_224") == "swin_tiny_patch4_window7_224"


def test_listed_addresses_exist():
    known = set(list_pretrained())
    listed = {name: published(name) for name in list_models()}
    assert sum(map(len, listed.values())) > 25
    for name, found in listed.items():
        for weights in found:
            address = weights.address.removeprefix("timm:")
            assert address in known
            assert weights.license == LICENSES[get_pretrained_cfg(address).license]
            assert not name.startswith("fastvit") or weights.top1


@pytest.mark.parametrize("name", ["vit_ti_patch16", "vit_s_patch32", "vit_b_patch14", "vit_l_patch16", "vit_h_patch14"])
def test_they_are_weights_of_that_model(name):
    for weights in published(name):
        theirs = timm.create_model(weights.address.removeprefix("timm:"), depth=1)
        assert (theirs.embed_dim, theirs.patch_embed.patch_size[0]) == (
            VARIANTS[name].embed_dim,
            VARIANTS[name].patch_size,
        )
