"""The manifest notices every change of the files it names, and a manifest that is itself damaged."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.commands import ROOT
from vitcli.weights import manifest
from vitcli.weights.checkpoint_folders import newest_valid
from vitcli.weights.manifest import MANIFEST, tree_hash_of, verify_manifest, write_manifest

SHA256 = "0" * 64
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_what_is_noticed(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    (tmp_path / "b.json").write_text("{}")
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "note.txt").write_text("not in the manifest")
    assert verify_manifest(tmp_path) == []

    (tmp_path / "a.bin").write_bytes(b"12344")
    (tmp_path / "b.json").unlink()
    problems = verify_manifest(tmp_path)
    assert len(problems) == 2
    assert "a.bin was changed" in problems[0]
    assert problems[1] == "b.json is missing"
    (tmp_path / "a.bin").write_bytes(b"123")
    assert verify_manifest(tmp_path)[0] == "a.bin has 3 bytes instead of 5"


@pytest.mark.parametrize("size", [0, 3, 4, 5, 8, 9])
def test_the_hash_of_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    """As `split -b 4`, `sha256sum` of each piece and of all digests together would give it."""
    monkeypatch.setattr(manifest, "PIECE_BYTES", 4)
    content = bytes(range(size))
    (tmp_path / "a.bin").write_bytes(content)
    pieces = [content[start : start + 4] for start in range(0, size, 4)]
    expected = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()
    assert tree_hash_of(tmp_path / "a.bin") == expected
    write_manifest(tmp_path)
    written = json.loads((tmp_path / MANIFEST).read_text())
    assert written == {"format": 2, "files": {"a.bin": {"size": size, "sha256_tree": expected}}}


def test_manifests_of_the_first_format(tmp_path: Path):
    """One that vitcli wrote before there was another; it still notices a change."""
    run = shutil.copytree(ROOT / "tests/engine/golden/format1", tmp_path / "run")
    folder = run / "checkpoints" / "step-00000003"
    assert "format" not in json.loads((folder / MANIFEST).read_text())
    assert verify_manifest(folder, {"state.json"}) == []
    content = bytearray((folder / "ema.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "ema.safetensors").write_bytes(content)
    assert verify_manifest(folder) == [f"ema.safetensors was changed: its hash is not the one in {MANIFEST}"]


def test_manifests_of_a_newer_version(tmp_path: Path):
    (tmp_path / MANIFEST).write_text('{"format": 3, "files": {}}')
    assert "was written by a newer vitcli" in verify_manifest(tmp_path)[0]


def test_required_files_must_be_named(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path, {"a.bin"}) == []
    (tmp_path / "late.bin").write_bytes(b"1")
    assert verify_manifest(tmp_path, {"a.bin", "late.bin"}) == [f"late.bin is not in {MANIFEST}"]


def test_a_missing_manifest(tmp_path: Path):
    assert verify_manifest(tmp_path) == [f"{MANIFEST} is missing"]


@pytest.mark.parametrize(
    "files",
    [
        None, 3, [], {}, {"a": {}}, {"a": 3}, {"a": {"size": "3", "sha256": SHA256}}, {"a": {"size": 3}},
        {"a": {"size": True, "sha256": SHA256}}, {"a": {"size": -1, "sha256": SHA256}},
        {"a": {"size": 3.0, "sha256": SHA256}}, {"a": {"size": 3, "sha256": 3}}, {"a": {"size": 3, "sha256": "0"}},
        {"../a": {"size": 3, "sha256": SHA256}}, {"": {"size": 3, "sha256": SHA256}},
        {"a" * 300: {"size": 3, "sha256": SHA256}},
    ],
)  # fmt: skip
def test_a_damaged_manifest(tmp_path: Path, files: object):
    (tmp_path / MANIFEST).write_text(json.dumps({"files": files}))
    problems = verify_manifest(tmp_path)
    assert len(problems) == 1
    assert f"{MANIFEST} cannot be read" in problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "null", '{"files": ' * 50_000, "[" * 10**6, '{"a": ' + "9" * 5000 + "}", "\x00", "{}",
        '{"files": {"a": {"size": 1, "size": 2, "sha256": "' + SHA256 + '"}}}',
        '{"files": {"a": {"size": 1e999, "sha256": "' + SHA256 + '"}}}',
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_json(tmp_path: Path, text: str):
    (tmp_path / MANIFEST).write_text(text)
    problems = verify_manifest(tmp_path)
    assert len(problems) == 1
    assert f"{MANIFEST} cannot be read" in problems[0]


def test_a_manifest_in_another_encoding(tmp_path: Path):
    (tmp_path / MANIFEST).write_bytes(b'{"files": {"\xff": 1}}')
    assert f"{MANIFEST} cannot be read" in verify_manifest(tmp_path)[0]


@settings(max_examples=200, deadline=None)
@given(ANY_JSON | st.fixed_dictionaries({"files": ANY_JSON | st.dictionaries(st.text(max_size=5), ANY_JSON)}))
def test_no_content_is_taken_for_a_valid_manifest(tmp_path_factory: pytest.TempPathFactory, content: object):
    """Nothing in the folder has the SHA-256 that is claimed: whatever the manifest says, something is wrong."""
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST).write_text(json.dumps(content))
    assert verify_manifest(folder)


def checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"tensors")
    (folder / "optimizer.safetensors").write_bytes(b"moments")
    (folder / "state.json").write_text("{}")
    write_manifest(folder)
    return folder


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors", None])
def test_resume_skips_a_checkpoint_whose_manifest_names_too_little(tmp_path: Path, name: str | None):
    """A manifest without state.json, without the tensors that are there, or without any file: not valid."""
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    assert newest_valid(tmp_path) == (newer, [])
    content = json.loads((newer / MANIFEST).read_text())
    content["files"] = {kept: entry for kept, entry in content["files"].items() if name not in (kept, None)}
    (newer / MANIFEST).write_text(json.dumps(content))
    found, damaged = newest_valid(tmp_path)
    assert found == older
    assert "step-00000002 is damaged" in damaged[0]
    assert (name or MANIFEST) in damaged[0]


@pytest.mark.parametrize("text", ["[]", "{", "[" * 10**6, '{"step": 1, "step": 2}'])
def test_resume_skips_a_checkpoint_whose_state_is_not_an_object(tmp_path: Path, text: str):
    """Also where the manifest was written after the damage."""
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (newer / "state.json").write_text(text)
    write_manifest(newer)
    found, damaged = newest_valid(tmp_path)
    assert found == older
    assert "state.json cannot be read" in damaged[0]
