"""Google's .npz: what timm's own loader reads out of a file we read too, and what we write it reads."""

import io
import zipfile

import numpy as np
import pytest
import torch

from tests.models.test_vit_keys import big_vision
from tests.models.vit_oracles import ours, pictures, timm_vit
from tests.support.tensors import randomized
from vitcli.errors import DataError, WeightsError
from vitcli.models.vit_google import to_google
from vitcli.weights.load import load_weights
from vitcli.weights.npz import write_npz
from vitcli.weights.read import read_weights


@pytest.mark.parametrize("form", ["", "opt/target/", "params/", "scanned"])
def test_timms_loader_is_the_judge(tmp_path, form):
    """Both read one file; big_vision's words stand behind params/ only, as timm expects them."""
    source = randomized(ours()).state_dict()
    prefix = "" if form == "scanned" else form
    google = to_google(source, 2) if form in ("", "opt/target/") else big_vision(source)
    if form == "params/":
        google = {
            name.replace("encoderblock/", f"encoderblock_{i}/"): tensor[i] if "encoderblock/" in name else tensor
            for i in range(2)
            for name, tensor in google.items()
        }
    path = tmp_path / "w.npz"
    write_npz(path, {f"{prefix}{name}": tensor for name, tensor in google.items()})
    judge, model = timm_vit(), ours()
    judge.load_pretrained(str(path))
    assert load_weights(model, path).lines() == ["32 tensors loaded"]
    assert all(torch.equal(tensor, judge.state_dict()[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(model(pictures()), judge(pictures()), atol=1e-5, rtol=1e-5)


def test_every_type_to_the_last_bit(tmp_path):
    tensors = {
        "a": torch.randn(3, 4), "half": torch.randn(2).half(), "brain": torch.randn(2, 3).bfloat16(),
        "number": torch.tensor(3), "fortran": torch.randn(3, 4).T,
    }  # fmt: skip
    write_npz(tmp_path / "w.npz", tensors)
    read = read_weights(tmp_path / "w.npz").tensors
    assert list(read) == list(tensors)
    assert all(read[name].dtype == tensors[name].dtype and torch.equal(read[name], tensors[name]) for name in read)
    with pytest.raises(WeightsError, match="moving average"):
        read_weights(tmp_path / "w.npz", use_ema=True)


def test_no_objects(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(WeightsError, match="Python objects"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
def test_cut_off(tmp_path, keep):
    path = tmp_path / "w.npz"
    write_npz(path, {"embedding/kernel": torch.randn(100, 100), "b": torch.randn(10)})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"w\.npz is damaged or cut off"):
        read_weights(path)


def test_an_array_that_promises_more_than_it_has(tmp_path):
    """A header of a terabyte costs nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**38,)})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"1234")
    with pytest.raises(DataError, match="claims"):
        read_weights(tmp_path / "w.npz")
