"""Reads what a Python file declares, tables of names and arguments of functions, without importing it (or torch)."""

import ast
from pathlib import Path

from vitcli.errors import UsageError


def table_names(file: Path, table: str) -> dict[str, int]:
    """{name: its line} of the dict that `file` assigns to `table`; empty where there is no such table.

    Raises:
        UsageError: the file cannot be read, is no Python, or the table is no dict with literal names.
    """
    for statement in _parsed(file).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            value = getattr(statement, "value", None)
            keys = value.keys if isinstance(value, ast.Dict) else [None]
            written = [key for key in keys if isinstance(key, ast.Constant)]
            names = {key.value: key.lineno for key in written if isinstance(key.value, str)}
            if len(names) < len(keys):
                raise UsageError(
                    f"{file}:{statement.lineno}: {table} must be a dict that is written out, with each name once",
                    help=f'for example {table} = {{"my_name": build_it}}',
                )
            return names
    return {}


def keyword_arguments(file: Path, function: str) -> tuple[str, ...]:
    """Names of the keyword-only arguments of `function`, which stands at the top of `file`; empty where it does not."""
    for statement in _parsed(file).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == function:
            return tuple(argument.arg for argument in statement.args.kwonlyargs)
    return ()


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except SyntaxError as error:
        raise UsageError(f"{file}:{error.lineno or 1}: not Python: {error.msg}") from None
    except ValueError as error:  # null bytes, before Python 3.12
        raise UsageError(f"{file}:1: not Python: {error}") from None
