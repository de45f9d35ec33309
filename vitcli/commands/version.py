"""`vitcli --version`: the versions of what a run depends on, without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import vitcli
from vitcli.log import SafeConsole


def version() -> None:
    """Print one line: vitcli, torch, torchvision, Python."""
    of_torch = f"torch {_of('torch')}, torchvision {_of('torchvision')}"
    text = f"vitcli {vitcli.__version__}, {of_torch}, Python {platform.python_version()}"
    SafeConsole(highlight=False, emoji=False, soft_wrap=True).print(text)


def _of(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "not installed"
