"""Reads a flat YAML file strictly: YAML 1.2's numbers and booleans, no duplicate keys, no tags; places are kept.

PyYAML implements YAML 1.1, where `1e-3` is a string, `no` is False, `010` is 8, `12:30` is 750, and the last of two
equal keys silently wins. Here `1e-3` is a number, `no` a word, `010` ten, `12:30` text, and an equal key a mistake.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitcli.errors import Place, Problem, RecipeError

# A recipe has some hundred values, or, with a weight for each of many classes, some ten thousand. What is larger is
# refused while it is read: PyYAML builds some 20,000 values a second.
MAX_BYTES = 1_000_000
MAX_DEPTH = 4
MAX_KEYS = 1_000
MAX_VALUES = 30_000

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True)
class Entry:
    """One line `key: value` of a file, and the places of both."""

    key: str
    value: Any
    key_place: Place
    value_place: Place


def scalar(text: str) -> Any:
    """The value of the plain word `text`: None, bool, int, float or str."""
    if text.lower() in _CONSTANTS and text in (text.lower(), text.capitalize(), text.upper()):
        return _CONSTANTS[text.lower()]
    if _INT.fullmatch(text) and len(text) < 100:  # Python refuses to read numbers of thousands of digits
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if "n" in text.lower() else text)  # ".inf", ".nan"
    return text


def command_line_value(text: str) -> Any:
    """The value of `--key text`: a scalar, or a list written `0.5,1.0` or `[0.5, 1.0]`."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        return [_item(part.strip()) for part in inner[1:-1].split(",") if part.strip()]
    if "," in inner and all(not isinstance(scalar(part.strip()), str) for part in inner.split(",")):
        return [scalar(part.strip()) for part in inner.split(",")]
    return scalar(inner)


def _item(text: str) -> Any:
    """A scalar of a list; quotes make it text, as in a file."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else scalar(text)


def read_flat_yaml(path: Path) -> tuple[list[Entry], list[Problem]]:
    """All entries of the file, and all problems with their form.

    Raises:
        RecipeError: the file cannot be read, or is not a YAML mapping.
    """
    text = _read_text(path)
    lines = text.splitlines()
    node = _compose(text, path, lines)
    if node is None:
        return [], []
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError([Problem("a recipe is a list of `key: value` lines", _place_of(node, path, lines))])
    entries, problems = [], []
    seen: dict[str, Place] = {}
    for key_node, value_node in node.value:
        key_place, value_place = _place_of(key_node, path, lines), _place_of(value_node, path, lines)
        key = str(key_node.value)
        if key in seen:
            help = f"it is already set on line {seen[key].line}; remove one"
            problems.append(Problem(f"the key `{key}` is given twice", key_place, help))
            continue
        seen[key] = key_place
        try:
            entries.append(Entry(key, _value(value_node), key_place, value_place))
        except ValueError as error:
            problems.append(Problem(str(error), value_place))
    return entries, problems


def _read_text(path: Path) -> str:
    def refuse(message: str, help: str | None = None) -> RecipeError:
        return RecipeError([Problem(message, str(path), help)])

    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise refuse(f"the file is larger than {MAX_BYTES:,} bytes and is not a recipe")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        help = "`vitcli recipes ls` lists the recipes that are shipped"
        raise refuse(f"cannot read the recipe: {error.strerror}", help) from None
    except UnicodeDecodeError as error:
        raise refuse(f"the file is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    if bad := next((c for c in text if c < " " and c not in "\t\n\r"), None):
        raise refuse(f"the file contains the control character {bad!r} and is not a text file")
    return text


class _Composer(yaml.SafeLoader):
    """Builds the node tree, and refuses what no recipe has. No values are made, so nothing in it can run."""

    depth = num_values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors (&) and aliases (*) are not allowed in a recipe", "write the value out")
        self.num_values += 1
        is_key = (self.depth, index) == (1, None) and isinstance(parent, yaml.MappingNode)
        if is_key and len(parent.value) >= MAX_KEYS:
            raise _Refused(f"the file has more than {MAX_KEYS:,} keys", "`vitcli train --help_all` lists every key")
        if self.num_values > MAX_VALUES:
            raise _Refused(f"the file has more than {MAX_VALUES:,} values and is not a recipe", None)
        if self.depth > MAX_DEPTH:
            raise _Refused("the values are nested too deep", "recipes are flat")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Refused(Exception):
    """Its arguments are the message and the help."""


def _compose(text: str, path: Path, lines: list[str]) -> yaml.Node | None:
    """The node tree of the text."""
    try:
        return yaml.compose(text, Loader=_Composer)
    except _Refused as refused:
        message, help = refused.args
        raise RecipeError([Problem(message, str(path), help)]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        parts = (getattr(error, "context", None), getattr(error, "problem", None))
        message = " ".join(part for part in parts if part) if mark else str(error)
        place = _place(path, lines, mark, width=1) if mark else str(path)
        help = "indent with spaces; a value with `: ` or `#` needs quotes"
        raise RecipeError([Problem(f"this is not YAML: {message}", place, help)]) from None


def _value(node: yaml.Node) -> Any:
    if node.tag.startswith("tag:yaml.org,2002:python") or node.tag.startswith("!"):
        raise ValueError(f"the tag {node.tag} is not allowed: a recipe contains plain values only")
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style in ("'", '"', "|", ">") else scalar(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    raise ValueError("nested keys are not allowed: a recipe is flat; move these keys to the left margin")


def _place_of(node: yaml.Node, path: Path, lines: list[str]) -> Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else len(lines[start.line]) - start.column
    return _place(path, lines, start, width)


def _place(path: Path, lines: list[str], mark: yaml.Mark, width: int) -> Place:
    text = lines[mark.line] if mark.line < len(lines) else ""
    return Place(str(path), mark.line + 1, mark.column + 1, text, width)
