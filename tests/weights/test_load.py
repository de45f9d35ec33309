"""Weights go into a model completely or not at all, and the report says what became of them."""

import pytest
import torch
from timm.models import adapt_input_conv

from tests.models.oracle import images, pair
from tests.models.vit_oracles import ours
from tests.support.tensors import randomized
from vitcli.errors import WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit_keys import to_apple
from vitcli.models.registry import create_model
from vitcli.weights.fit import fold_of
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights


def t8(**options: int) -> torch.nn.Module:
    return create_model("fastvit_t8", **{"num_classes": 10, **options})


def unchanged(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def test_timms_file(tmp_path):
    _, theirs = pair("fastvit_t8")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = t8().eval()
    report = load_weights(model, tmp_path / "w.pth")
    assert unchanged(model, theirs.state_dict())
    assert report.lines() == ["462 tensors loaded"]


@pytest.mark.parametrize("fused", [False, True])
def test_apples_file(tmp_path, fused):
    ours, _ = pair("fastvit_sa12")
    form = reparameterize(ours) if fused else ours
    torch.save({"state_dict": to_apple(form.state_dict())}, tmp_path / "w.pth.tar")
    fresh = create_model("fastvit_sa12", num_classes=10)
    target = reparameterize(fresh) if fused else fresh.eval()
    assert len(load_weights(target, tmp_path / "w.pth.tar").matched) == (198 if fused else 504)
    x = images(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target(x), ours(x), atol=1e-5, rtol=0)


def test_another_number_of_classes():
    model, source = t8(num_classes=5), t8(num_classes=10)
    head = model.head.fc.weight.clone()
    report = load_weights(model, Weights(source.state_dict(), source="ten.pth"))
    assert torch.equal(model.head.fc.weight, head)
    assert torch.equal(model.stem[0].conv_kxk[0].conv.weight, source.stem[0].conv_kxk[0].conv.weight)
    assert report.missing == report.unexpected == ["head.fc.weight", "head.fc.bias"]
    assert "10 classes, the model 5" in report.lines()[1]


@pytest.mark.parametrize("build", [t8, lambda **keys: ours(distilled=True, **keys)])
def test_rows_of_a_head_follow_the_names_of_their_classes(build):
    """12 classes in both, 11 of them the same, in another order; the new class keeps its initial row."""
    before, after = [*"abcdefghijkl"], [*"lkzjihgfedcb"]
    source, model = randomized(build(num_classes=12), seed=1), randomized(build(num_classes=12), seed=2)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_weights(model, Weights(source.state_dict(), {"class_names": before}), class_names=after)
    heads = [name for name in first if name.startswith("head")]
    assert report.partial == heads
    for name in heads:
        for row, label in enumerate(after):
            expected = first[name][row] if label == "z" else source.state_dict()[name][before.index(label)]
            assert torch.equal(model.state_dict()[name][row], expected), (name, label)
    note = "head: 11 of 12 classes start from the file's rows of that name; 1 start from random values"
    assert note in report.notes


def test_an_equal_number_of_other_classes_proves_nothing():
    source, model = t8(num_classes=3), t8(num_classes=3)
    head = model.head.fc.weight.clone()
    weights = Weights(source.state_dict(), {"class_names": ["ant", "bee", "cat"]})
    report = load_weights(model, weights, class_names=["oak", "elm", "fir"])
    assert torch.equal(model.head.fc.weight, head)
    assert report.notes == ["head not loaded: the file has 3 classes, and none of them is one of the 3 of the data"]
    report = load_weights(model, Weights(source.state_dict()), class_names=["oak", "elm", "fir"])
    assert torch.equal(model.head.fc.weight, source.head.fc.weight)
    assert report.notes == ["head: the file does not name its 3 classes; the order of the data is assumed"]
    assert load_weights(model, weights, class_names=["ant", "bee", "cat"]).notes == []
    decomposed, composed = "e\u0301lan", "\u00e9lan"  # two spellings of one name
    weights = Weights(source.state_dict(), {"class_names": [decomposed, "bee", "cat"]})
    assert load_weights(model, weights, class_names=[composed, "bee", "cat"]).notes == []


def test_reset_head_and_models_without_one():
    source = t8()
    model = t8()
    head = model.head.fc.weight.clone()
    assert "reset_head is set" in load_weights(model, Weights(source.state_dict()), reset_head=True).notes[0]
    assert torch.equal(model.head.fc.weight, head)
    report = load_weights(t8(num_classes=0), Weights(source.state_dict()))
    assert "the model has no head" in report.notes[0]
    headless = t8(num_classes=0).state_dict()
    report = load_weights(model, Weights(headless))
    assert report.missing == ["head.fc.weight", "head.fc.bias"]
    assert "the file has none" in report.notes[0]
    assert load_weights(model, Weights(headless), reset_head=True).missing == ["head.fc.weight", "head.fc.bias"]


@pytest.mark.parametrize("in_model", [1, 2, 4, 6, 10])
def test_other_numbers_of_channels_are_adapted_as_by_timm(in_model):
    source, model = t8(), t8(in_chans=in_model)
    report = load_weights(model, Weights(source.state_dict(), {}, "w.pth"))
    names = {f"{conv}.weight" for conv in model.first_convs} & source.state_dict().keys()
    for name in names:
        torch.testing.assert_close(model.state_dict()[name], adapt_input_conv(in_model, source.state_dict()[name]))
    assert sum(f"3 image channels in the file, {in_model} in the model" in note for note in report.notes) == len(names)


@pytest.mark.parametrize("in_model", [3, 6])
def test_gray_weights_see_the_mean_of_the_channels(in_model):
    source, model = t8(in_chans=1).eval(), t8(in_chans=in_model).eval()
    load_weights(model, Weights(source.state_dict(), {}, "w.pth"))
    images = torch.randn(2, in_model, 64, 64)
    with torch.no_grad():
        expected = source(images.mean(1, keepdim=True))
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("in_file", "in_model"), [(3, 1), (1, 3)])
def test_image_channels(in_file, in_model, fused):
    """A gray image gives the same in both models."""
    source, model = t8(in_chans=in_file).eval(), t8(in_chans=in_model).eval()
    if fused:
        source, model = reparameterize(source), reparameterize(model)
    report = load_weights(model, Weights(source.state_dict()))
    assert len(report.resized) == (1 if fused else 2)
    assert "image channels" in report.lines()[1]
    gray = images(1, 1, 64, 64)
    with torch.no_grad():
        expected = source(gray.expand(-1, in_file, -1, -1))
        torch.testing.assert_close(model(gray.expand(-1, in_model, -1, -1)), expected, atol=1e-5, rtol=0)


def test_the_wrong_model_is_refused_and_the_right_one_named():
    cases = [("fastvit_sa12", lambda m: m, r"\d+ missing: .*\n.*"), ("fastvit_t12", reparameterize, "")]
    for name, form, missing in cases:
        source = form(create_model(name, num_classes=3))
        model = form(t8())
        before = snapshot(model)
        with pytest.raises(WeightsError, match=missing + r"\d+ unexpected: .*\n.*\d+ of another shape") as caught:
            load_weights(model, Weights(to_apple(source.state_dict()), source="w.pth"))
        assert caught.value.help == f"this file fits {name}"
        assert caught.value.exit_code == 2
        assert unchanged(model, before)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_one_wrong_tensor_stops_everything(change):
    model, tensors = t8(), dict(t8().state_dict())
    before = snapshot(model)
    last = "final_conv.se.fc2.bias"
    if change == "missing":
        del tensors[last]
    elif change == "unexpected":
        tensors["final_conv.se.fc3.bias"] = torch.ones(1)
    else:
        tensors[last] = torch.ones(3)
    with pytest.raises(WeightsError, match=r"1 (missing|unexpected|of another shape): final_conv") as caught:
        load_weights(model, Weights(tensors))
    assert "no model" in caught.value.help
    assert unchanged(model, before)


def test_forms_are_not_mixed():
    model = t8()
    fused = reparameterize(model)
    assert fold_of(fused.state_dict()) == fold_of(to_apple(fused.state_dict())) == "standard"
    assert fold_of(model.state_dict()) is None
    with pytest.raises(WeightsError, match="is fused") as caught:
        load_weights(model, Weights(fused.state_dict()))
    assert "reparameterize(model, fold='standard')" in caught.value.help
    assert "vitcli weights unfuse" in caught.value.help
    with pytest.raises(WeightsError, match="in training form"):
        load_weights(fused, Weights(model.state_dict()))


def test_half_precision_files():
    model, source = t8(), t8()
    load_weights(model, Weights({k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.state_dict(), source.state_dict(), atol=1e-3, rtol=1e-3)
