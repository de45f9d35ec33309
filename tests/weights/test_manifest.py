"""The manifest notices every change of the files it names."""

from vitcli.weights.manifest import MANIFEST, verify_manifest, write_manifest


def test_what_is_noticed(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    (tmp_path / "b.json").write_text("{}")
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "note.txt").write_text("of no concern")
    assert verify_manifest(tmp_path) == []

    (tmp_path / "a.bin").write_bytes(b"12344")
    (tmp_path / "b.json").unlink()
    problems = verify_manifest(tmp_path)
    assert len(problems) == 2
    assert "a.bin was changed" in problems[0]
    assert problems[1] == "b.json is missing"
    (tmp_path / "a.bin").write_bytes(b"123")
    assert verify_manifest(tmp_path)[0] == "a.bin has 3 bytes instead of 5"


def test_a_manifest_that_is_none(tmp_path):
    assert verify_manifest(tmp_path) == [f"{MANIFEST} is missing"]
    for text in ("", "{", "[]", '{"files": 3}', '{"files": {"a": {}}}'):
        (tmp_path / MANIFEST).write_text(text)
        assert "cannot be read" in verify_manifest(tmp_path)[0]
