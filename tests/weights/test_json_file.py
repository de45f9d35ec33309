"""JSON that someone else may have written or damaged: an object as the standard library reads it, or a DataError."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitcli.errors import DataError
from vitcli.weights.json_file import MAX_BYTES, MAX_DEPTH, parse_json, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), st.booleans())
def test_what_the_standard_library_writes_is_read(value: dict, ascii: bool):
    assert parse_json(json.dumps(value, ensure_ascii=ascii)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"), ("{", "Expecting property"), ("[]", "not an object"),
        ("null", "not an object"), ('"text"', "not an object"), ("3", "not an object"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' occurs more than once"), ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"), ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "9" * 10_000 + "}", "is too large"), ('{"a": -' + "9" * 25 + "}", "is too large"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nested more than 64 deep"), ("[" * 10**6, "nested more than 64 deep"),
        ('{"a": ' * 10**5, "nested more than 64 deep"), ("{} {}", "Extra data"), ('{"a": "\n"}', "control character"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, reason: str):
    (tmp_path / "page.json").write_text(text)
    with pytest.raises(DataError, match=r"page\.json cannot be read") as caught:
        read_json(tmp_path / "page.json", help="export it again")
    assert reason in str(caught.value)
    assert caught.value.help == "export it again"
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_limits_are_exact():
    deepest = {}
    for _ in range(MAX_DEPTH - 1):
        deepest = {"a": deepest}
    assert parse_json(json.dumps(deepest)) == deepest
    with pytest.raises(ValueError, match="nested"):
        parse_json(json.dumps({"a": deepest}))
    assert parse_json('{"a": 18446744073709551615}') == {"a": 2**64 - 1}


def test_files_that_are_not_text(tmp_path: Path):
    for content in (b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}', b"\x00"):
        (tmp_path / "page.json").write_bytes(content)
        with pytest.raises(DataError):
            read_json(tmp_path / "page.json")
    with open(tmp_path / "huge.json", "wb") as file:  # sparse: only its size is large
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="more than 16 MiB"):
        read_json(tmp_path / "huge.json")
    with pytest.raises(DataError, match="No such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="Is a directory"):
        read_json(tmp_path)


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0123456789.eE+-NaInfty \n', max_size=60))
def test_any_text_is_an_object_or_refused(content: bytes | str):
    """And what is accepted is what the standard library reads."""
    try:
        value = parse_json(content)
    except ValueError:
        return
    assert value == json.loads(content)
    assert all(not isinstance(item, float) or math.isfinite(item) for item in value.values())
