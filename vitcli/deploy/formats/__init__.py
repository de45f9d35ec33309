"""The formats of artifacts: one file each, with the names that `Format` lists.

A file must not import torch or its packages before one of its functions is called; this one imports not even numpy,
because the command line lists the formats in its help.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from vitcli.catalog import nearest
from vitcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

#: an input batch of the network -> its logits or probabilities
Session = Callable[["np.ndarray"], "np.ndarray"]
Purpose = Literal["export", "run", "quantize"]


@dataclass(frozen=True)
class Setting:
    """How a session runs. device: "cpu", "cuda", or one of OpenVINO's device names, such as "GPU"."""

    precision: str
    threads: int | None = None  #: None: all cores
    device: str = "cpu"


@dataclass(frozen=True)
class Order:
    """What to export, and how."""

    network: "nn.Module"  #: in eval mode; takes `example`
    example: "Tensor"  #: at least two images, unless `batch` is given
    folder: Path
    precision: str
    output: str  #: name of the output
    batch: int | None = None  #: the only batch size; None: any
    device: str = "cpu"
    calibration: "list[Tensor]" = field(default_factory=list)  #: input batches from which static int8 takes ranges
    keep_float: tuple[str, ...] = ()  #: names of layers that are not quantized
    node_modules: Path | None = None  #: where npm has installed what --to web copies; None: ./node_modules

    @property
    def dynamic_shapes(self) -> Any:
        """The shapes for torch.export: only the batch size varies, and only if it is not fixed."""
        from torch.export import Dim

        return None if self.batch else ({0: Dim("batch", min=1, max=4096)},)


class Format(Protocol):
    FILE: str  #: name of the network's file in the artifact
    PRECISIONS: tuple[str, ...]  #: the precisions that it offers, of fp32, bf16, fp16, int8, ...
    CASTS: tuple[str, ...]  #: those for which the network itself is cast; the format handles the others
    BATCH: int | None  #: the only batch size that it offers; None: any
    DEVICES: tuple[str, ...]  #: devices that it can be exported for
    HOLDS_CODE: bool  #: whether loading the file may run code in it
    IS_REFERENCE: bool  #: whether sessions here only show what is right: other programs run the file, and faster
    EXTRA: str  #: `pip install 'vitcli[EXTRA]'` installs its packages
    NEEDS: dict[Purpose, tuple[str, ...]]  #: packages

    def export(self, order: Order) -> None:
        """Write FILE into order.folder."""
        ...

    def open_session(self, path: Path, setting: Setting) -> Session:
        """The network in the file `path`, run by the format's own runtime."""
        ...


def use(form: Format, folder: Path) -> list[str]:
    """Commands for the user of the exported `folder`, which they call THIS_FOLDER.

    A format whose artifacts are used in another way has a function `use(folder)` of its own.
    """
    usual = ["vitcli predict THIS_FOLDER photo.jpg", "vitcli validate THIS_FOLDER --data_dir DATA"]
    own: Callable[[Path], list[str]] | None = getattr(form, "use", None)
    return [*(own(folder) if own else []), *usual]


def formats() -> list[str]:
    """Names of the formats, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def open_format(name: str, *, to: Purpose = "run") -> Format:
    """The format `name`; UsageError if there is none, or if packages that it needs `to` do this are missing."""
    check_format_name(name)
    found = cast(Format, importlib.import_module(f"vitcli.deploy.formats.{name}"))
    need(found.NEEDS[to], extra=found.EXTRA, why=f"the format {name}")
    return found


def check_format_name(name: str) -> None:
    """UsageError if there is no format `name`; imports none."""
    if name not in formats():
        likely = nearest(name, formats())
        guess = f"did you mean {likely}? " if likely else ""
        raise UsageError(f"there is no format {name!r}", help=f"{guess}The formats are {', '.join(formats())}")


def need(packages: Iterable[str], *, extra: str, why: str) -> None:
    """UsageError unless all `packages` are installed; its help says how to install them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        cure = "pip install torch torchvision" if "torch" in missing else f"pip install 'vitcli[{extra}]'"
        raise UsageError(f"{why} needs {', '.join(missing)}", help=cure)
