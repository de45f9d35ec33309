"""The help of commands with many options: common ones first, all with `--help_all`, plain lines where it is piped."""

from itertools import starmap
from typing import Any

import typer
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from vitcli.log import SafeConsole
from vitcli.recipe.describe import help_of
from vitcli.recipe.schema import SECTION_OF, default
from vitcli.recipe.write import yaml_value

#: columns for names and what they take; in a pipe, a longer one pushes its sentence to the right
_NAME_COLUMNS = 32


class SectionedCommand(TyperCommand):
    """A terminal gets panels that fit its width; a pipe gets one line for each option, to be searched with grep."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        usage = self.get_usage(ctx)
        text = "\n".join(" ".join(line.split()) for line in (self.help or "").strip().splitlines())
        sections = self._sections(ctx)
        console = SafeConsole(highlight=False, emoji=False, markup=False)
        if not console.is_terminal:
            console.print(f"{usage}\n\n{text}", *starmap(_lines, sections.items()), sep="\n", soft_wrap=True)
            return
        console.print(f"\n {usage}\n", style="bold")
        console.print(Padding(text, (0, 1, 1, 1)))
        for title, rows in sections.items():
            console.print(_panel(title, rows))

    def _sections(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Title of a section -> names of its options with what they take, and what they are for."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if not (record := parameter.get_help_record(ctx)):
                continue  # hidden
            name, help = (" ".join(text.split()) for text in record)
            if parameter.param_type_name == "argument":
                sections["Arguments"].append((parameter.metavar or name, help))
            else:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append((name, help))
        return {title: rows for title, rows in sections.items() if rows}


def _lines(title: str, rows: list[tuple[str, str]]) -> str:
    return f"\n{title}:\n" + "".join(f"  {name:<{_NAME_COLUMNS}}  {help}".rstrip() + "\n" for name, help in rows)


def _panel(title: str, rows: list[tuple[str, str]]) -> Panel:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=_NAME_COLUMNS, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for name, help in rows:
        shown = Text(name, style="yellow")
        shown.highlight_regex(r"(?<!\S)--?\w+", "bold cyan")
        table.add_row(shown, help)
    return Panel(table, title=title, title_align="left", border_style="dim")


def key_help(name: str, *, short: bool = False) -> str:
    """What `--help` says of a recipe key: its text, or the first sentence of it, and its default."""
    value, text = default(name), help_of(name)
    if short:
        first, *others = text.replace(". ", ".\n").split("\n")
        text = " ".join([first, *(sentence for sentence in others if sentence.startswith("Default:"))])
    if value is not None:
        shown = value if isinstance(value, str) else yaml_value(list(value) if isinstance(value, tuple) else value)
        text += f" [default: {shown}]"
    return text


def show_all(ctx: Any, wanted: bool) -> None:
    """The callback of `--help_all`: every option, the recipe keys by their sections, and the end of the program."""
    if not wanted:
        return
    parameters = ctx.command.params
    for parameter in parameters:
        if parameter.name in SECTION_OF:
            parameter.hidden, parameter.rich_help_panel = False, SECTION_OF[parameter.name]
            parameter.help = key_help(parameter.name)
    place = {name: number for number, name in enumerate(SECTION_OF, start=1)}
    parameters.sort(key=lambda parameter: place.get(parameter.name, 0))
    ctx.get_help()
    raise typer.Exit
