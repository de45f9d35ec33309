"""`vitcli models ls`: the available architectures. Those of the catalog are listed without importing torch."""

import fnmatch

from rich.table import Table

from vitcli.catalog import Sizes, model_info, names
from vitcli.log import SafeConsole

_console = SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)


def ls(pattern: str = "*") -> None:
    """Print a table of the architectures whose names match `pattern`."""
    table = Table("model", "parameters", "fused", "GMACs", "input px")
    for name in sorted(fnmatch.filter(names("models"), pattern)):
        info = model_info(name)
        sizes = info.sizes or _measured(name)
        counts = f"{sizes.num_parameters:,}", f"{sizes.num_fused_parameters:,}"
        table.add_row(name, *counts, f"{sizes.gmacs:.3f}", str(info.img_size))
    _console.print(table)


def _measured(name: str) -> Sizes:
    from vitcli.models.sizes import measured_sizes

    return measured_sizes(name)
