"""The command line: options in, exit code out. Only this folder knows typer; torch is imported when needed."""

from vitcli.cli.app import main, train_main, validate_main

__all__ = ["main", "train_main", "validate_main"]
