"""Describes in words which values a key takes, for error messages, `--help` and `recipes show`."""

from functools import cache
from typing import Any

from vitcli import catalog
from vitcli.recipe.schema import SECTION_OF, SECTIONS, extra


@cache
def _properties(section: str) -> dict[str, Any]:
    return SECTIONS[section].model_json_schema()["properties"]


def _kinds(name: str) -> list[dict[str, Any]]:
    """The JSON schema of each kind of value that the key takes."""
    schema = _properties(SECTION_OF[name])[name]
    return schema.get("anyOf", [schema])


def help_of(name: str) -> str:
    return SECTIONS[SECTION_OF[name]].model_fields[name].description or ""


def allowed_values(name: str) -> list[str]:
    """The words that are allowed as the key's value, or in its list; empty if it is not a choice of words."""
    if registry := extra(name)["registry"]:
        return list(catalog.names(registry))
    return [str(word) for part in _kinds(name) for word in part.get("enum", [part["const"]] if "const" in part else [])]


def accepts(name: str, kind: str) -> bool:
    """Whether the key takes values of the JSON type `kind` (boolean, integer, number, string, array, null)."""
    return any(part.get("type") == kind for part in _kinds(name))


def expectation(name: str) -> str:
    """What the key takes, to be put after "must be": "a number > 0", "true or false", "one of CE, BCE"."""
    if extra(name)["registry"]:
        start = "a list of names from" if accepts(name, "array") else "one of"
        return f"{start} {', '.join(allowed_values(name))}" + (" or null" if accepts(name, "null") else "")
    return " or ".join(text for part in _kinds(name) if (text := _words(part)))


def metavar(name: str) -> str:
    """What the key takes, in one short word for `--help`: INT, FLOAT, BOOL, TEXT, a choice."""
    if extra(name)["registry"]:
        return "NAMES" if accepts(name, "array") else "NAME"
    if choices := allowed_values(name):
        before = ["BOOL"] if accepts(name, "boolean") else []
        after = [word for word, kind in (("LIST", "array"), ("null", "null")) if accepts(name, kind)]
        return "|".join(before + choices + after)
    kinds = {"boolean": "BOOL", "integer": "INT", "number": "FLOAT", "array": "LIST", "string": "TEXT"}
    return "|".join(short for kind, short in kinds.items() if accepts(name, kind))


def _words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false"
    if kind == "null":
        return "null"
    if kind == "string":
        return "a path" if schema.get("format") == "path" else "text"
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        count = {2: "two ", 3: "three "}.get(schema.get("minItems", 0), "") if "prefixItems" in schema else ""
        one = _words(items[0])
        return f"a list of {count}{one.removeprefix('a ').replace('number', 'numbers')}"
    return {"integer": "a whole number", "number": "a number"}.get(str(kind), "a value") + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[word]:g}" for word, sign in signs.items() if word in schema]
    return f" {' and '.join(limits)}" if limits else ""
