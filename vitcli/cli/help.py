"""How commands and groups of them show their help: in sections, in panels on a terminal, as plain lines in a pipe."""

from collections.abc import Iterator
from itertools import starmap
from typing import TYPE_CHECKING, Any

from typer import Typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.panel import Panel

#: widest column of names and what they take; in a pipe, a longer name pushes its sentence to the right
_NAME_COLUMNS = 32
#: of a section: what is typed, and what it is for
Rows = list[tuple[str, str]]


class SectionedCommand(TyperCommand):
    """A terminal gets panels that fit its width; a pipe gets one line for each option, to be searched with grep."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.show(ctx, self.sections(ctx))

    def sections(self, ctx: Any) -> dict[str, Rows]:
        """What `--help` shows, by titles."""
        return _parameters(self, ctx)

    def show(self, ctx: Any, sections: dict[str, Rows]) -> None:
        _show(self, ctx, sections)


class SectionedGroup(TyperGroup):
    """The same for a group: its options and its commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _show(self, ctx, _parameters(self, ctx) | {"Commands": list(self.purposes())})

    def purposes(self) -> Iterator[tuple[str, str]]:
        """Each command, and the first paragraph of its help."""
        for name, command in self.commands.items():
            yield name, one_line((command.help or "").partition("\n\n")[0])


class Commands(Typer):
    """A group of commands, all of which show their help in sections."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=settings.pop("cls", SectionedGroup), rich_markup_mode="markdown", **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, cls=settings.pop("cls", SectionedCommand), **settings)


def one_line(text: str) -> str:
    return " ".join(text.split())


def _show(command: TyperCommand | TyperGroup, ctx: Any, sections: dict[str, Rows]) -> None:
    from vitcli.terminal import SafeConsole

    usage = command.get_usage(ctx)
    text = "\n".join(one_line(line) for line in (command.help or "").strip().splitlines())
    console = SafeConsole(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.print(f"{usage}\n\n{text}", *starmap(_lines, sections.items()), sep="\n", soft_wrap=True)
        return
    from rich.padding import Padding

    console.print(f"\n {usage}\n", style="bold")
    console.print(Padding(text, (0, 1, 1, 1)))
    for title, rows in sections.items():
        console.print(_panel(title, rows))


def _parameters(command: TyperCommand | TyperGroup, ctx: Any) -> dict[str, Rows]:
    """Title of a section -> names of its options with what they take, and what they are for."""
    sections: dict[str, Rows] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        if not (record := parameter.get_help_record(ctx)):
            continue  # hidden
        name, help = (one_line(text) for text in record)
        if parameter.param_type_name == "argument":
            sections["Arguments"].append((parameter.metavar or name, help))
        else:
            sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append((name, help))
    return {title: rows for title, rows in sections.items() if rows}


def _lines(title: str, rows: Rows) -> str:
    return "\n".join([f"\n{title}:", *(f"  {name:<{_NAME_COLUMNS}}  {help}".rstrip() for name, help in rows)])


def _panel(title: str, rows: Rows) -> "Panel":
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=min(_NAME_COLUMNS, max(len(name) for name, _ in rows)), overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for name, help in rows:
        shown = Text(name, style="yellow" if name.startswith("-") else "bold cyan")
        shown.highlight_regex(r"(?<!\S)--?\w+", "bold cyan")
        table.add_row(shown, help)
    return Panel(table, title=title, title_align="left", border_style="dim")
