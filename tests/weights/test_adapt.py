"""Changes to weights for another model: each equals what the project does that it is named after, and is reported."""

import numpy as np
import pytest
import scipy.ndimage
import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torchvision.models.vision_transformer import interpolate_embeddings
from transformers import Dinov2Config, Dinov2Model

from tests.models.vit_oracles import ours, pictures, timm_vit
from tests.support.tensors import randomized
from tests.weights.test_load import snapshot, unchanged
from vitcli.errors import DataError, WeightsError
from vitcli.image_size import height_and_width
from vitcli.models.registry import create_model
from vitcli.models.vit_google import to_google
from vitcli.models.vit_keys import to_hf, to_torchvision
from vitcli.recipe.load import load_recipe
from vitcli.weights.adapt import resample_kernel, resample_positions
from vitcli.weights.fit import find_fit
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights


def positions(side: int | tuple[int, int], prefix: int) -> torch.Tensor:
    rows, columns = height_and_width(side)
    return torch.randn(1, prefix + rows * columns, 16, generator=torch.Generator().manual_seed(3))


def resized(given: torch.Tensor, old, new, *words) -> torch.Tensor:
    return resample_positions(given, height_and_width(old), height_and_width(new), *words)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 7), (4, 5), ((2, 8), 4), ((4, 6), (9, 3))])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_positions_as_timm(old, new, prefix):
    sizes = {"old_size": [*height_and_width(old)], "new_size": [*height_and_width(new)]}
    expected = resample_abs_pos_embed(positions(old, prefix), **sizes, num_prefix_tokens=prefix)
    torch.testing.assert_close(resized(positions(old, prefix), old, new, prefix), expected, atol=0, rtol=0)


def test_positions_as_transformers():
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    theirs = Dinov2Model(config).embeddings
    expected = theirs.interpolate_pos_encoding(torch.zeros(1, 1 + 6 * 3, 16), 84, 42)
    found = resized(theirs.position_embeddings, 4, (6, 3), 1, "transformers")
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_positions_as_torchvision():
    file = {"encoder.pos_embedding": positions(14, 1)}
    expected = interpolate_embeddings(image_size=384, patch_size=16, model_state=file)["encoder.pos_embedding"]
    torch.testing.assert_close(resized(positions(14, 1), 14, 24, 1, "torchvision"), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 7)])
def test_positions_as_the_jax_code(old, new):
    """It calls scipy.ndimage.zoom of order 1 on the grid."""
    given = positions(old, 1)
    grid = given[0, 1:].reshape(old, old, 16).numpy()
    zoomed = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    expected = np.concatenate([given[0, :1].numpy(), zoomed.reshape(new * new, 16)])
    found = resized(given, old, new, 1, "jax")[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=3e-6)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 32), (16, 14)])
def test_patches_as_timm(old, new):
    kernel = torch.randn(5, 3, old, old, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        resample_kernel(kernel, (new, new)), resample_patch_embed(kernel, [new, new]), atol=1e-5, rtol=1e-5
    )


def load(source: torch.nn.Module, **options):
    model = ours(**options)
    return model, load_weights(model, Weights(source.state_dict(), {"options": {"num_heads": 2}}, "w.pth"))


def test_another_image_and_patch_size():
    source = randomized(ours())
    model, report = load(source, img_size=48)
    assert report.resized == ["pos_embed"]
    assert report.notes == ["pos_embed: 4 x 4 positions in the file, 6 x 6 in the model; resized like timm"]
    judge = timm_vit(img_size=48)
    judge.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(source.state_dict(), judge))
    with torch.no_grad():
        torch.testing.assert_close(model(pictures(side=48)), judge(pictures(side=48)), atol=1e-5, rtol=1e-5)
    model, report = load(source, patch_size=16)
    assert report.resized == ["patch_embed.proj.weight", "pos_embed"]
    judge = timm_vit(patch_size=16)
    judge.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(source.state_dict(), judge))
    with torch.no_grad():
        torch.testing.assert_close(model(pictures()), judge(pictures()), atol=1e-5, rtol=1e-5)
    model, report = load(source, img_size=64, patch_size=16)  # the same grid
    assert report.resized == ["patch_embed.proj.weight"]


def test_the_rule_is_chosen():
    source, results = randomized(ours()), {}
    for rule in ("timm", "torchvision", "jax"):
        model = ours(img_size=48)
        assert rule in load_weights(model, Weights(source.state_dict()), pos_resample=rule).notes[0]
        results[rule] = model.pos_embed.detach()
    assert not torch.equal(results["timm"], results["torchvision"])
    assert not torch.equal(results["jax"], results["torchvision"])


def test_a_distilled_file_in_a_plain_model():
    source = randomized(ours(distilled=True))
    model, report = load(source)
    assert report.unexpected == ["dist_token", "head_dist.weight", "head_dist.bias"]
    assert "loses accuracy" in report.notes[0]
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.equal(model.pos_embed[:, 1:], source.pos_embed[:, 2:])
    assert torch.equal(model.head.weight, source.head.weight)
    with pytest.raises(WeightsError, match="dist_token"):  # nothing is made up in the other direction
        load(randomized(ours()), distilled=True)


def test_another_pooling():
    source = randomized(ours())
    model, report = load(source, global_pool="avg", class_token=True)
    assert torch.equal(model.fc_norm.weight, source.norm.weight)
    assert report.notes == ["norm loaded as fc_norm: the model pools the mean of patches, the file's did not"]
    back, report = load(model)
    assert torch.equal(back.norm.bias, source.norm.bias)
    assert "fc_norm loaded as norm" in report.notes[0]


def test_other_classes_and_pre_logits():
    source = randomized(ours(pre_logits=24))
    model, report = load(source, num_classes=3)
    assert report.missing == ["head.weight", "head.bias"]
    assert set(report.unexpected) == {"head.weight", "head.bias", "pre_logits.fc.weight", "pre_logits.fc.bias"}
    assert report.notes[0] == "head not loaded: the file has 5 classes, the model 3"
    assert not model.head.weight.any()
    model, report = load(source, num_classes=3, pre_logits=24)
    assert torch.equal(model.pre_logits.fc.weight, source.pre_logits.fc.weight)
    with pytest.raises(WeightsError, match="pre_logits") as caught:  # the head would see other features
        load(source)
    assert "pre_logits: 24" in caught.value.help
    _, report = load(randomized(ours(num_classes=0)), num_classes=3, pre_logits=24)
    assert "pre_logits not loaded: the file has none" in report.notes
    distilled, report = load(randomized(ours(distilled=True)), distilled=True, num_classes=3)
    assert set(report.missing) == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert not distilled.head_dist.weight.any()


def test_a_layer_after_the_logits():
    source = randomized(ours())
    model, report = load(source, fine_tune_from=5, num_classes=3)
    assert torch.equal(model.head.weight, source.head.weight)
    assert report.missing == ["fine_tune.weight", "fine_tune.bias"]
    assert report.notes == ["fine_tune not loaded: the file has none"]
    again, report = load(randomized(model), fine_tune_from=5, num_classes=3)
    assert torch.equal(again.fine_tune.weight, model.fine_tune.weight)
    assert report.notes == []
    _, report = load(model, fine_tune_from=5, num_classes=4)
    assert report.notes == ["fine_tune not loaded: the file has 3 classes, the model 4"]
    with pytest.raises(WeightsError, match=r"head\.weight \(5, 32\)"):
        load(source, fine_tune_from=7, num_classes=3)
    with pytest.raises(WeightsError, match=r"fine_tune\.weight"):
        load(model)


def test_gray_images():
    source = randomized(ours())
    model, report = load(source, in_chans=1)
    assert report.resized == ["patch_embed.proj.weight"]
    with torch.no_grad():
        expected = source(pictures(1).expand(-1, 3, -1, -1))
        torch.testing.assert_close(model(pictures(1)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "registers", "another family"])
def test_what_is_refused_leaves_the_model_alone(change):
    tensors, options = dict(randomized(ours()).state_dict()), {}
    if change == "missing":
        del tensors["norm.bias"]
    elif change == "unexpected":
        tensors["rel_pos_bias"] = torch.ones(3)
    elif change == "shape":
        tensors["blocks.1.mlp.fc2.bias"] = torch.ones(3)
    elif change == "registers":
        options = {"reg_tokens": 2}
    else:
        tensors = create_model("fastvit_t8", num_classes=5).state_dict()
    model = ours(**options)
    before = snapshot(model)
    with pytest.raises(WeightsError, match=r"w\.pth is not for this model") as caught:
        load_weights(model, Weights(tensors, source="w.pth"))
    assert unchanged(model, before)
    if change == "another family":
        assert caught.value.help == "this file fits fastvit_t8"


FULL = {"recipe": {"model": "vit_b_patch16", "num_heads": 2, "attn_scale": "full"}}


@pytest.mark.parametrize(
    ("meta", "rename", "named"),
    [
        ({"config": {"num_attention_heads": 4}}, to_hf, "num_heads: 4"),
        ({"config": {"model_args": {"num_heads": 4}}}, dict, "num_heads: 4"),
        ({"recipe": {"model": "vit_b_patch16"}}, dict, "num_heads: 12"),  # the variant's own
        ({}, lambda tensors: to_google(tensors, 4), "num_heads: 4"),
        (FULL, dict, "attn_scale: full"),
    ],
)
def test_what_shows_in_no_tensor_is_compared(meta, rename, named):
    model = ours(embed_dim=48)
    weights = Weights(rename(randomized(model).state_dict()), meta, "w.pth")
    before = snapshot(model)
    with pytest.raises(WeightsError, match="is not for this model") as caught:
        load_weights(model, weights)
    assert caught.value.help == f"set {named}"
    assert unchanged(model, before)
    name, value = named.split(": ")
    right = ours(embed_dim=48, **{name: int(value) if value.isdigit() else value})
    assert load_weights(right, weights).notes == []


def test_positions_that_are_not_kept_are_compared():
    known = {"options": {"pos_embed": "sincos2d", "num_heads": 2}}
    weights = Weights(ours(pos_embed="sincos2d").state_dict(), known, "w.pth")
    assert load_weights(ours(pos_embed="sincos2d"), weights).notes == []
    with pytest.raises(WeightsError, match="pos_embed: sincos2d in the weights, none in the model"):
        load_weights(ours(pos_embed="none"), weights)


def test_the_eps_and_unknown_heads_are_said():
    config = {"config": {"num_attention_heads": 2, "layer_norm_eps": 1e-12}}
    report = load_weights(ours(), Weights(ours().state_dict(), config))
    assert report.notes == ["norm_eps: 1e-12 in the weights, 1e-06 in the model"]
    unknown = Weights(ours().state_dict(), source="w.pth")
    assert load_weights(ours(num_heads=4), unknown).notes == ["num_heads: not stated in w.pth; 4 assumed"]
    small = {"depth": 1, "embed_dim": 192}  # of a width that has a usual number
    for heads, notes in ((3, []), (12, ["num_heads: not stated in w.pth; 12 assumed"])):
        weights = Weights(ours(**small, num_heads=12).state_dict(), source="w.pth")
        assert load_weights(ours(**small, num_heads=heads), weights).notes == notes


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"config": {"num_attention_heads": "four"}}, "num_heads is 'four' and must be a whole number >= 1"),
        ({"config": {"num_attention_heads": 0}}, "num_heads is 0"),
        ({"config": {"layer_norm_eps": [1]}}, "norm_eps"),
        ({"options": {"attn_scale": "none"}}, "attn_scale"),
        ({"recipe": {"image_resize": "big"}}, "img_size"),
    ],
)
def test_invalid_configuration_next_to_the_tensors(meta, reason):
    with pytest.raises(DataError, match=reason):
        find_fit(Weights(ours().state_dict(), meta, "w.pth"))


@pytest.mark.parametrize("rename", [dict, to_torchvision, to_hf, lambda tensors: to_google(tensors, 3)])
def test_the_model_that_fits_is_named(rename):
    """By its size, whatever the names; with the options that differ."""
    with torch.device("meta"):
        small = create_model("vit_ti_patch16", num_classes=7, img_size=384)
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in small.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(create_model("fastvit_t8"), Weights(rename(zeros)))
    assert caught.value.help == "this file fits vit_ti_patch16"
    no_bias = {name: tensor for name, tensor in zeros.items() if not name.endswith("qkv.bias")}
    with pytest.raises(WeightsError) as caught:
        load_weights(ours(), Weights(no_bias))
    assert caught.value.help == "this file fits vit_ti_patch16 with qkv_bias: false"


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("fvit", {"depth": 2}, "fvit with depth: 2, num_heads: 2"),
        (
            "vit_ti_patch16",
            {"transformer": "linformer", "embed_dim": 32},
            "vit_ti_patch16 with embed_dim: 32, num_heads: 2, transformer: linformer",
        ),
    ],
)
def test_a_checkpoint_of_ours_knows_its_model(model, options, said):
    """Even if the tensors do not show it: other blocks, or encoded patches. Usual values are not listed."""
    recipe = load_recipe(model=model, image_resize=32, num_heads=2, **options)
    tensors = create_model(model, num_classes=5, img_size=32, num_heads=2, **options).state_dict()
    assert str(find_fit(Weights(tensors, {"recipe": recipe.flat()}))) == said
    assert find_fit(Weights(tensors)) is None
