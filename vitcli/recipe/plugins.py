"""Knows the parts that others wrote: files given by `--plugin`, and installed packages with entry points.

A plugin is a Python file with a table `TRANSFORMERS`, or a table `VARIANTS` and a function `create`, as the files of
models/ have them. Its names are read without running it; it is imported when something of it is built. Only who types
the command can name one: recipes and checkpoints come from anywhere, and must never make anything run.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from vitcli.errors import UsageError, VitcliError
from vitcli.recipe.tables import keyword_arguments, table_names

#: entry points of installed packages: name = "module.path"
GROUP = "vitcli.plugins"
#: registry -> the table that adds to it
TABLES = {"models": "VARIANTS", "transformers": "TRANSFORMERS"}

_REGISTRY = Path(__file__).parent.parent / "models" / "registry.py"
_given: list[Path] = []


def use_plugin(file: str | Path) -> None:
    """Make the names in the tables of `file` known; nothing in it runs yet.

    Raises:
        UsageError: no such file, no Python, or no plugin.
    """
    file = Path(file)
    _check(file)
    if not any(file.samefile(known) for known in plugin_files()):
        _given.append(file)


def forget_plugins() -> None:
    """Know no plugin file any more, and look for installed ones anew."""
    _given.clear()
    _installed.cache_clear()
    imported.cache_clear()


def plugin_files() -> tuple[Path, ...]:
    """The files of all plugins: the installed ones, then those that were given."""
    return (*_installed(), *_given)


def plugin_words() -> str:
    """` --plugin FILE` for each file that was given, to go on with in another command."""
    return "".join(f" --plugin {file}" for file in _given)


@cache
def imported(file: Path) -> ModuleType:
    """The module of a plugin's file. This runs it.

    Raises:
        UsageError: it raised an exception.
    """
    module = _installed().get(file)
    with plugin_errors_in_words(file, "the plugin cannot be imported"):
        return importlib.import_module(module) if module else _import_file(file)


@contextmanager
def plugin_errors_in_words(file: Path, help: str) -> Iterator[None]:
    """An exception of a plugin's code becomes a UsageError with the line of `file` it came from."""
    try:
        yield
    except VitcliError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == file.absolute()]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        raise UsageError(f"{place}: {type(error).__name__}: {error}", help=help) from error


def _import_file(file: Path) -> ModuleType:
    name = f"vitcli_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@cache
def _installed() -> dict[Path, str]:
    """{file: the module it is} of the plugins that installed packages declare."""
    found: dict[Path, str] = {}
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist else "somebody's"
        try:
            spec = importlib.util.find_spec(point.value)
        except Exception as error:  # of the package around the module, which is imported to find it
            spec, reason = None, f"{type(error).__name__}: {error}"
        else:
            reason = "there is no such module"
        if spec is None or spec.origin is None:
            message = f"the installed package {package} declares the plugin {point.value}, but {reason}"
            raise UsageError(message, help="mend the package or uninstall it")
        file = Path(spec.origin)
        _check(file)
        found[file] = point.value
    return found


def _check(file: Path) -> None:
    """UsageError unless the file has the form of a plugin."""
    if file.suffix != ".py":
        raise UsageError(f"{file}: a plugin is a Python file, whose name ends in .py")
    tables = [table for table in TABLES.values() if table_names(file, table)]
    if not tables:
        raise UsageError(
            f"{file}: this is no plugin, it has none of the tables {', '.join(TABLES.values())}",
            help='for example TRANSFORMERS = {"my_name": build_it}; docs/extending.md shows how',
        )
    taken = keyword_arguments(file, "create")
    missing = [name for name in keyword_arguments(_REGISTRY, "create_model") if name not in taken]
    if "VARIANTS" in tables and missing:
        raise UsageError(
            f"{file}: VARIANTS needs a function create(name, *, ...), and it lacks {', '.join(missing)}",
            help="see `create_model`, which passes these on to every model",
        )
