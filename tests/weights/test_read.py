"""Every format that holds weights is read, everything else is refused by name, and no code from a file is run."""

import argparse
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch.optim.swa_utils import AveragedModel

from tests.models.vit_oracles import hf_vit, ours
from tests.support.tensors import same
from vitcli.errors import DataError, WeightsError
from vitcli.models.registry import create_model
from vitcli.weights.fit import known_options
from vitcli.weights.load import load_weights
from vitcli.weights.manifest import write_manifest
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import PACKED, read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
AVERAGED = {name: tensor + 100 for name, tensor in TENSORS.items()}


def checkpoint(directory: Path, *, ema: bool = True) -> Path:
    directory.mkdir()
    save_file(TENSORS, directory / "model.safetensors")
    if ema:
        save_file(AVERAGED, directory / "ema.safetensors")
    (directory / "state.json").write_text(json.dumps({"step": 12, "class_names": ["cat", "dog"]}))
    write_manifest(directory)
    return directory


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.bin", "w"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files(tmp_path, name, legacy):
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(tmp_path / name)
    assert same(weights.tensors, TENSORS)
    assert weights.source == str(tmp_path / name)


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"arch": "fastvit_t8"})
    weights = read_weights(str(tmp_path / "w.safetensors"))
    assert same(weights.tensors, TENSORS)
    assert weights.meta == {"arch": "fastvit_t8"}
    with pytest.raises(WeightsError, match="moving average"):
        read_weights(tmp_path / "w.safetensors", use_ema=True)


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_safetensors_whose_length_looks_like_another_format(tmp_path, start):
    """The file begins with the length of its header, whose lowest bytes may be those of a pickle or a zip archive."""
    path, padding = tmp_path / "w.safetensors", 0
    while not path.exists() or not path.read_bytes().startswith(start):
        padding += 8
        save_file(TENSORS, path, metadata={"vitcli": json.dumps({"class_names": ["a", "b"]}), "more": "x" * padding})
    weights = read_weights(path)
    assert same(weights.tensors, TENSORS)
    assert weights.class_names == ["a", "b"]


@pytest.mark.parametrize(("wrapper", "ema_wrapper"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_what_trainers_save(tmp_path, wrapper, ema_wrapper):
    beside = {"epoch": 3, "arch": "fastvit_t8"}
    content = {wrapper: TENSORS, ema_wrapper: AVERAGED, "args": argparse.Namespace(lr=1), **beside}
    torch.save(content, tmp_path / "w.pth.tar")
    for use_ema in (False, True, None):
        weights = read_weights(tmp_path / "w.pth.tar", use_ema=use_ema)
        assert same(weights.tensors, TENSORS if use_ema is False else AVERAGED)
        assert weights.meta == beside
        assert weights.chosen == (wrapper if use_ema is False else ema_wrapper)
    torch.save({wrapper: TENSORS}, tmp_path / "plain.pth")
    with pytest.raises(WeightsError, match="no moving average"):
        read_weights(tmp_path / "plain.pth", use_ema=True)


def test_the_average_of_torchvisions_trainer(tmp_path):
    """Its ExponentialMovingAverage is torch's AveragedModel, which counts its updates in a tensor."""
    model = torch.nn.Linear(2, 2)
    average = AveragedModel(model)
    average.update_parameters(model)
    torch.save({"model_ema": average.state_dict()}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth").tensors, model.state_dict())
    with pytest.raises(WeightsError, match="only the moving average"):
        read_weights(tmp_path / "w.pth", use_ema=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_text_under_our_names(tmp_path, suffix):
    """What another trainer calls its recipe is text; ours is a table."""
    texts = dict.fromkeys(("config", "recipe", "options", "preprocessing", "preprocessor_config", "class_names"), "a")
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"model": TENSORS, "arch": "vit", **texts}, path)
    else:
        save_file(TENSORS, path, metadata={"arch": "vit", **texts})
    assert read_weights(path).meta == {"arch": "vit"}


DEEP = '{"a": ' * 100_000
WRONG = [
    '{"recipe": 3}', '{"preprocessing": []}', '{"class_names": "cat"}', '{"class_names": [1, 2]}', '{"options": "a"}',
    '{"class_names": {"0": "cat"}}', DEEP, "[]", "{", '{"a": 1, "a": 2}', '{"step": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_this_project_wrote_and_someone_damaged(tmp_path, text):
    """In the metadata of a file, and in a state.json whose manifest was renewed: named, and no traceback."""
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={PACKED: text})
    with pytest.raises(DataError, match=r"w\.safetensors is damaged"):
        read_weights(tmp_path / "w.safetensors")
    directory = checkpoint(tmp_path / "step-1")
    (directory / "state.json").write_text(text)
    write_manifest(directory)
    with pytest.raises(DataError, match=r"step-1.* is damaged.*(state\.json|wrong type)"):
        read_weights(directory)


def test_empty_entries_are_as_good_as_absent(tmp_path):
    directory = checkpoint(tmp_path / "step-1")
    (directory / "state.json").write_text('{"recipe": null, "class_names": null, "step": 3}')
    write_manifest(directory)
    assert read_weights(directory).meta == {"step": 3}


def test_a_file_that_the_manifest_does_not_list_is_not_read(tmp_path):
    directory = checkpoint(tmp_path / "step-1", ema=False)
    save_file(AVERAGED, directory / "ema.safetensors")
    with pytest.raises(DataError, match=r"ema\.safetensors is not in MANIFEST"):
        read_weights(directory, use_ema=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers(tmp_path, prefix):
    torch.save({prefix + name: tensor for name, tensor in TENSORS.items()}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth").tensors, TENSORS)


def test_checkpoint_directory(tmp_path):
    directory = checkpoint(tmp_path / "step-1")
    assert same(read_weights(directory, use_ema=False).tensors, TENSORS)
    assert same(read_weights(directory, use_ema=True).tensors, AVERAGED)
    assert same(read_weights(directory).tensors, AVERAGED)
    assert read_weights(directory).meta["class_names"] == ["cat", "dog"]
    with pytest.raises(WeightsError, match=r"ema\.safetensors"):
        read_weights(checkpoint(tmp_path / "step-2", ema=False), use_ema=True)


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_checkpoint_directory(tmp_path, damage):
    directory = checkpoint(tmp_path / "step-1")
    path = directory / "model.safetensors"
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"step-1 is damaged: model\.safetensors"):
        read_weights(directory)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_no_code_is_run(tmp_path, plain_pickle):
    trap = tmp_path / "trap"
    content = {"state_dict": TENSORS, "extra": Bomb(trap)}
    if plain_pickle:
        (tmp_path / "w.pth").write_bytes(pickle.dumps({"extra": Bomb(trap)}, protocol=2))
    else:
        torch.save(content, tmp_path / "w.pth")
    with pytest.raises((WeightsError, DataError), match=r"w\.pth"):
        read_weights(tmp_path / "w.pth")
    assert not trap.exists()


def test_a_whole_model_is_refused_with_the_reason(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="run code") as caught:
        read_weights(tmp_path / "w.pth")
    assert "safetensors" in caught.value.help


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.98])
def test_cut_off_files(tmp_path, suffix, keep):
    path = tmp_path / f"w{suffix}"
    tensors = {"a": torch.randn(100, 100)}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match="w" + suffix) as caught:
        read_weights(path)
    assert caught.value.exit_code == 3
    assert caught.value.help


def _valid(kind: str) -> bytes:
    """A small file of each format."""
    file, tensors = io.BytesIO(), {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
    if kind == "npz":
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif kind == "safetensors":
        return save(tensors)
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


VALID = {kind: _valid(kind) for kind in ("zip", "pickle", "npz", "safetensors")}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(VALID)), st.binary(min_size=1, max_size=8), st.integers(0, 10**6))
def test_damaged_anywhere(tmp_path_factory, kind, noise, at):
    """Some bytes of a file replaced: tensors or an error of ours, no other exception, no large memory."""
    content = VALID[kind]
    at %= len(content)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    try:
        weights = read_weights(path)
    except (DataError, WeightsError):
        return
    assert sum(tensor.nbytes for tensor in weights.tensors.values()) <= 2 * len(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n\n<html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "Git LFS"),
        (b"hello", "not a weights file"),
        (b"\x80\x02hello", "damaged"),
        (b"PK\x03\x04hello", "damaged"),
        (b"\xff" * 7 + b"\x7f{}", "damaged"),
    ],
)
def test_other_files(tmp_path, content, reason):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_weights(tmp_path / "w.pth")


def test_missing_and_empty_of_tensors(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_weights(tmp_path / "nowhere.pth")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no tensors.*epoch"):
        read_weights(tmp_path / "w.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="list, not a dictionary"):
        read_weights(tmp_path / "list.pth")


def test_a_folder_with_a_configuration(tmp_path):
    """As the hub stores models."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"id2label": {"1": "dog", "0": "cat", "10": "yak"}}')
    weights = read_weights(tmp_path)
    assert same(weights.tensors, TENSORS)
    assert weights.meta["class_names"] == ["cat", "dog", "yak"]
    for text, names in (('{"id2label": {"0": "LABEL_0"}}', None), ('{"label_names": ["a"]}', ["a"]), ("{}", None)):
        (tmp_path / "config.json").write_text(text)
        assert read_weights(tmp_path).meta.get("class_names") == names
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match="damaged"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "3", DEEP, '{"a": 1, "a": 2}', '{"hidden_size": 1e999}', "\xff"])
def test_a_configuration_that_is_not_an_object(tmp_path, name, text):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"id2label": 3}', '{"id2label": "cat"}', '{"id2label": {"0": ["cat"]}}', '{"id2label": {"x": "cat"}}',
        '{"label_names": [{}]}', '{"label_names": true}',
    ],
)  # fmt: skip
def test_class_names_of_the_wrong_type(tmp_path, text):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json: the class names"):
        read_weights(tmp_path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**64)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a", "bicubic"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("012ab"), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "id2label", "label_names", "model_args", "pretrained_cfg", "num_attention_heads", "layer_norm_eps", "image_mean",
    "image_std", "resample", "size", "crop_size", "do_center_crop", "mean", "std", "interpolation", "crop_pct",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.dictionaries(st.sampled_from(KEYS), VALUES))
@example({}, {"image_mean": [0.5], "resample": [3]})
def test_any_configuration_is_understood_or_refused(tmp_path_factory, config, preprocessor):
    """By everything that looks at a configuration: no exception but ours."""
    folder = tmp_path_factory.getbasetemp() / "repository"
    folder.mkdir(exist_ok=True)
    save_file(TENSORS, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5]} | preprocessor))
    try:
        weights = read_weights(folder)
        known_options(weights)
        preprocessing_of(weights)
    except (DataError, WeightsError):
        return
    assert all(isinstance(name, str) for name in weights.meta.get("class_names", []))


def test_a_folder_with_several_files(tmp_path):
    """As transformers writes a large model."""
    theirs = hf_vit()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    theirs.save_pretrained(tmp_path / "one")
    assert same(read_weights(tmp_path).tensors, read_weights(tmp_path / "one").tensors)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    first = next(iter(table))
    for weight_map, message in (
        ({first: "../other.safetensors"}, "is not the name of a file"),
        ({first: ".hidden"}, "is not the name of a file"),
        ({first: 3}, "is not the name of a file"),
        ({first: "missing.safetensors"}, "does not exist"),
        (table | {"more": table[first]}, "lacks more, which"),
        ([], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(DataError, match=message):
            read_weights(tmp_path)


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "student.backbone."])
def test_a_common_beginning_is_removed_where_the_rest_is_known(tmp_path, prefix):
    for number, tensors in enumerate((ours().state_dict(), create_model("fastvit_t8", num_classes=2).state_dict())):
        path = tmp_path / f"{number}.pth"
        torch.save({prefix + name: tensor for name, tensor in tensors.items()}, path)
        weights = read_weights(path)
        assert same(weights.tensors, tensors)
        assert weights.prefix == prefix
    torch.save({prefix + "a": torch.zeros(1), prefix + "b": torch.zeros(1)}, tmp_path / "unknown.pth")
    assert read_weights(tmp_path / "unknown.pth").tensors.keys() == {prefix + "a", prefix + "b"}


def test_a_model_whose_own_names_begin_so(tmp_path):
    model = torch.nn.ModuleDict({"net": ours()})
    torch.save(model.state_dict(), tmp_path / "w.pth")
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert load_weights(model, tmp_path / "w.pth").notes == []
    assert same(model.state_dict(), expected)


def test_which_of_two_weights_was_loaded_is_said(tmp_path):
    model = ours()
    torch.save({"model": model.state_dict(), "model_ema": model.state_dict()}, tmp_path / "w.pth")
    for use_ema, sentence in ((None, "the average is used (model_ema)"), (False, "the raw weights are used (model)")):
        report = load_weights(model, read_weights(tmp_path / "w.pth", use_ema=use_ema))
        assert report.notes[0] == f"the file has raw weights and their moving average: {sentence}"
