"""MindSpore's .ckpt, written as MindSpore's schema describes it, is read exactly; damaged bytes are refused."""

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.vit_oracles import ours
from tests.support.tensors import randomized
from vitcli.errors import DataError, WeightsError
from vitcli.weights.load import load_weights
from vitcli.weights.mindspore import is_mindspore, read_mindspore
from vitcli.weights.read import read_weights


def _checkpoint_class():
    """MindSpore's checkpoint.proto (proto2) as a class of the protobuf package."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="checkpoint.proto", syntax="proto2")
    tensor = file.message_type.add(name="TensorProto")
    tensor.field.add(name="dims", number=1, type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    tensor.field.add(name="tensor_type", number=2, type=field.TYPE_STRING, label=field.LABEL_REQUIRED)
    tensor.field.add(name="tensor_content", number=3, type=field.TYPE_BYTES, label=field.LABEL_REQUIRED)
    checkpoint = file.message_type.add(name="Checkpoint")
    value = checkpoint.nested_type.add(name="Value")
    value.field.add(name="tag", number=1, type=field.TYPE_STRING, label=field.LABEL_REQUIRED)
    value.field.add(
        name="tensor", number=2, type=field.TYPE_MESSAGE, type_name=".TensorProto", label=field.LABEL_REQUIRED
    )
    checkpoint.field.add(
        name="value", number=1, type=field.TYPE_MESSAGE, type_name=".Checkpoint.Value", label=field.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Checkpoint"))


CHECKPOINT = _checkpoint_class()


def encoded(arrays: dict[str, np.ndarray | str], *, pieces: int = 1) -> bytes:
    """As MindSpore's save_checkpoint writes them: one message per piece of a tensor."""
    names = {"float32": "Float32", "float16": "Float16", "int32": "Int32", "bool": "Bool"}
    out = b""
    for name, array in arrays.items():
        text = isinstance(array, str)
        content = np.array(array).tobytes() if text else array.tobytes()
        step = -(-len(content) // pieces) or 1
        for at in range(0, max(len(content), 1), step):
            value = (message := CHECKPOINT()).value.add(tag=name)
            value.tensor.tensor_type = "str" if text else names[str(array.dtype)]
            value.tensor.dims.extend([0] if text or not array.shape else array.shape)
            value.tensor.tensor_content = content[at : at + step]
            out += message.SerializeToString()
    return out


ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.half": np.ones((2, 1), dtype=np.float16),
    "a.flags": np.array([True, False]),
    "epoch_num": np.array(7, dtype=np.int32),
    "note": "ViT",
}


@pytest.mark.parametrize("pieces", [1, 3])
def test_what_it_holds(tmp_path, pieces):
    (tmp_path / "w.ckpt").write_bytes(encoded(ARRAYS, pieces=pieces))
    weights = read_weights(tmp_path / "w.ckpt")
    assert list(weights.tensors) == ["a.weight", "a.half", "a.flags"]
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), ARRAYS[name])
    assert weights.meta == {"epoch_num": 7, "note": "ViT"}
    with pytest.raises(WeightsError, match="moving average"):
        read_weights(tmp_path / "w.ckpt", use_ema=True)


def test_names_of_norms(tmp_path):
    names = ("bn.gamma", "bn.beta", "bn.moving_mean", "bn.moving_variance", "blocks.0.ls1.gamma", "moment1.bn.gamma")
    (tmp_path / "w.ckpt").write_bytes(encoded({name: np.ones(2, np.float32) for name in names}))
    expected = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "blocks.0.ls1.gamma"]
    assert list(read_weights(tmp_path / "w.ckpt").tensors) == expected


#: MindCV 0.2's names (mindcv/models/vit.py) of ours
MINDCV = {
    "cls_token": "backbone.cls", "pos_embed": "backbone.pos_embedding",
    "patch_embed.proj": "backbone.patch_embedding.conv", "blocks.": "backbone.transformer.layers.",
    ".norm1.": ".0.cell.0.", ".attn.qkv": ".0.cell.1.qkv",
    ".attn.proj": ".0.cell.1.out", ".norm2.": ".1.cell.0.", ".mlp.fc1": ".1.cell.1.dense1",
    ".mlp.fc2": ".1.cell.1.dense2", "head.": "head.classifier.",
}  # fmt: skip


@pytest.mark.parametrize("old", [True, False])
def test_mindcvs_vit(tmp_path, old):
    """Old files have their own names, later ones timm's; both use MindSpore's names in norms."""
    source = randomized(ours())
    arrays = {}
    for name, tensor in source.state_dict().items():
        for here, there in (MINDCV if old else {"head.": "head.classifier."}).items():
            name = name.replace(here, there)
        name = f"backbone.{name}" if old and name.startswith("norm.") else name
        if "norm" in name or ".cell.0." in name:
            name = name.removesuffix("weight").removesuffix("bias") + ("gamma" if name.endswith("weight") else "beta")
        arrays[name] = tensor.numpy()
    (tmp_path / "w.ckpt").write_bytes(encoded(arrays))
    model = ours()
    assert load_weights(model, tmp_path / "w.ckpt").lines()[0] == "32 tensors loaded"
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_is_told_apart(tmp_path):
    assert is_mindspore(encoded(ARRAYS)[:1024])
    for head in (b"", b"\n", b"\n\n<html>", b"\n\x05hello", b"\x0a\x80", b"hello"):
        assert not is_mindspore(head)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_cut_off(tmp_path, keep):
    content = encoded({"w": np.ones((50, 50), np.float32)})
    (tmp_path / "w.ckpt").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"w\.ckpt is damaged or cut off"):
        read_weights(tmp_path / "w.ckpt")


@pytest.mark.parametrize(
    ("dims", "kind", "content"),
    [
        ([2**60, 2**60], "Float32", b"1234"),
        ([-1], "Float32", b"1234"),
        ([-1, -1], "Float32", b"1234"),
        ([1] * 100, "Float32", b"1234"),
        ([3], "Float32", b"1234"),
        ([0, 3], "Float32", b""),
        ([1], "Object", b"1234"),
    ],
)
def test_claims_that_are_false(tmp_path, dims, kind, content):
    value = (message := CHECKPOINT()).value.add(tag="w")
    value.tensor.dims.extend(dims)
    value.tensor.tensor_type, value.tensor.tensor_content = kind, content
    (tmp_path / "w.ckpt").write_bytes(message.SerializeToString())
    with pytest.raises(DataError, match=r"w\.ckpt"):
        read_weights(tmp_path / "w.ckpt")


@pytest.mark.parametrize("field", [b"\x12\x01x", b"\x28\x01"])
def test_fields_that_a_checkpoint_does_not_have(tmp_path, field):
    """Bytes after the tensors that another kind of message would have."""
    (tmp_path / "w.ckpt").write_bytes(encoded(ARRAYS) + field)
    with pytest.raises(DataError, match="fields that a checkpoint does not have"):
        read_weights(tmp_path / "w.ckpt")


def test_values_that_are_not_plain_tensors(tmp_path):
    (tmp_path / "w.ckpt").write_bytes(encoded(ARRAYS) + b"\x0a\x05\x0a\x03map")
    with pytest.raises(WeightsError, match="map is not a tensor"):
        read_weights(tmp_path / "w.ckpt")
    (tmp_path / "w.ckpt").write_bytes(encoded(ARRAYS) + b"\x0a\x05\x0a\x03\xff\xff\xff")
    with pytest.raises(DataError, match="damaged"):
        read_weights(tmp_path / "w.ckpt")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10**6), st.booleans())
def test_any_bytes_are_refused_or_read(tmp_path_factory, noise, at, random_only):
    """Noise after a valid beginning, or a valid file with bytes replaced: DataError or tensors, nothing else."""
    valid = encoded(ARRAYS)
    at %= len(valid)
    content = b"\n\x30\n\x01" + noise if random_only else valid[:at] + noise + valid[at + len(noise) :]
    path = tmp_path_factory.getbasetemp() / "noise.ckpt"
    path.write_bytes(content)
    try:
        tensors, _ = read_mindspore(path)
    except (DataError, WeightsError):
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= len(content)
