"""The command line: options in, exit code out. Only this folder knows typer; commands are imported when called."""

from vitcli.cli.app import main, train_main, validate_main

__all__ = ["main", "train_main", "validate_main"]
