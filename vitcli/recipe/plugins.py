"""Adds what a Python file given with `--plugin` offers to the catalog.

A plugin file has one or more tables of names, and for models also a function `create`; docs/extending.md shows them.
It is a program, and it is imported as soon as it is given. So only the person who types the command can give one:
recipes and checkpoints, which people exchange, cannot name plugins.
"""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from vitcli import catalog
from vitcli.errors import UsageError, plugin_errors_in_words

#: the table of a plugin file -> the kind it adds to
TABLES = {
    "VARIANTS": "models",
    "TRANSFORMERS": "transformers",
    "SOURCES": "sources",
    "TASKS": "tasks",
    "EVALUATORS": "evaluators",
    "SINKS": "sinks",
}

_given: dict[Path, ModuleType] = {}


def use_plugin(file: str | Path) -> None:
    """Import `file` and make the names in its tables known.

    Raises:
        UsageError: it cannot be imported, is not a plugin, or has a name that is taken.
    """
    file = Path(file)
    if file.suffix != ".py" or not file.is_file():
        raise UsageError(f"{file}: there is no such Python file", help="a plugin is a file whose name ends in .py")
    if any(file.samefile(known) for known in _given):
        return
    module = _given[file] = _import_file(file)
    try:
        tables = {table: _rows(file, module, table) for table in TABLES if hasattr(module, table)}
        if not any(tables.values()):
            help = 'for example TRANSFORMERS = {"my_name": build_it}; see docs/extending.md'
            raise UsageError(f"{file}: a plugin has at least one of the tables {', '.join(TABLES)}", help=help)
        for table, rows in tables.items():
            catalog.TABLES[TABLES[table]].update(rows)
        for name in tables.get("VARIANTS", ()):
            catalog.model_info(name)
    except UsageError:
        _forget(file)
        raise


def forget_plugins() -> None:
    """Remove all that plugin files added, and look for installed plugins again."""
    for file in tuple(_given):
        _forget(file)
    catalog.forget_installed()


def plugin_files() -> tuple[Path, ...]:
    return tuple(_given)


def plugin_words() -> str:
    """` --plugin FILE` for each file that was given, as another command needs it."""
    return "".join(f" --plugin {file}" for file in _given)


def _import_file(file: Path) -> ModuleType:
    """The module of a file, under the file's own name, so that worker processes can import it as well."""
    folder = str(file.absolute().parent)
    sys.path.append(folder)
    try:
        importlib.invalidate_caches()
        _check_module_name(file)
        with plugin_errors_in_words(file.stem, "the plugin cannot be imported"):
            return importlib.import_module(file.stem)
    except UsageError:
        sys.path.remove(folder)
        raise


def _check_module_name(file: Path) -> None:
    """UsageError if Python would import something else under the name of the file."""
    try:
        spec = find_spec(file.stem) if file.stem.isidentifier() else None
    except ValueError:  # of a module without a spec, such as __main__
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).exists() or not file.samefile(spec.origin):
        message = f"{file}: the name {file.stem!r} cannot be imported, or is that of another module"
        raise UsageError(message, help="rename the file: letters, digits and underscores, not a module's name")


def _rows(file: Path, module: ModuleType, table: str) -> dict[str, str]:
    """{name: "module:attribute"} for the names in `table`."""
    kind, things = TABLES[table], getattr(module, table)
    if not isinstance(things, dict) or not all(isinstance(name, str) for name in things):
        raise UsageError(f"{file}: {table} must be a dict with names as keys", help=f'{table} = {{"my_name": …}}')
    for name, thing in things.items():
        if name in catalog.names(kind):
            raise UsageError(f"{file}: the name {name!r} in {table} is taken", help="choose another name")
        if kind != "models" and not callable(thing):
            raise UsageError(f"{file}: {table}[{name!r}] must be a function or a class, not {thing!r}")
    if kind == "models" and not callable(getattr(module, "create", None)):
        raise UsageError(f"{file}: VARIANTS needs a function `create`", help="see docs/extending.md")
    return dict.fromkeys(things, f"{module.__name__}:{'create' if kind == 'models' else table}")


def _forget(file: Path) -> None:
    module = _given.pop(file)
    for rows in catalog.TABLES.values():
        for name in [name for name, row in rows.items() if str(row).startswith(f"{module.__name__}:")]:
            del rows[name]
    sys.modules.pop(module.__name__, None)
    sys.path.remove(str(file.absolute().parent))
