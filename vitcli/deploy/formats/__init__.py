"""The formats an artifact can have: one file each, with the same few names in it.

    FILE         name of the network's file in the artifact
    PRECISIONS   which of fp32, bf16, fp16, int8, ... it offers
    CASTS        those for which the network itself is cast; the others are the format's own doing
    BATCH        the only batch size it offers; None: any
    DEVICES      what it can be exported for
    HOLDS_CODE   whether loading the file may run code that is in it
    EXTRA        what `pip install 'vitcli[EXTRA]'` brings the packages in
    TO_EXPORT, TO_RUN, TO_QUANTIZE   packages that must be there
    export(order)                writes FILE into order.folder
    open_session(path, setting)  a function from input batches to the list of outputs, by the format's own runtime

A file must not import torch, nor the packages it needs, until one of its functions is called.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from vitcli.catalog import nearest
from vitcli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: a batch as the network takes it -> its outputs, the first of which are the logits or probabilities
Session = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """How a session is to run. device: "cpu", "cuda", or a device name of OpenVINO's such as "GPU"."""

    precision: str
    threads: int | None = None  #: None: all cores
    device: str = "cpu"


@dataclass(frozen=True)
class Order:
    """What is to be exported, and how."""

    network: "nn.Module"  #: in eval mode; takes `example`
    example: "Tensor"  #: two inputs or more, unless `batch` says otherwise
    folder: Path
    precision: str
    output: str  #: name of the output
    batch: int | None = None  #: the only batch size; None: any
    device: str = "cpu"
    calibration: "list[Tensor]" = field(default_factory=list)  #: inputs that show the ranges, for static int8
    keep_float: tuple[str, ...] = ()  #: names of layers that are not quantized


class Format(Protocol):
    FILE: str
    PRECISIONS: tuple[str, ...]
    CASTS: tuple[str, ...]
    BATCH: int | None
    DEVICES: tuple[str, ...]
    HOLDS_CODE: bool
    EXTRA: str
    TO_EXPORT: tuple[str, ...]
    TO_RUN: tuple[str, ...]
    TO_QUANTIZE: tuple[str, ...]

    def export(self, order: Order) -> None: ...

    def open_session(self, path: Path, setting: Setting) -> Session: ...


def formats() -> list[str]:
    """Names of the formats, in alphabetical order."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def format_of(name: str) -> Format:
    """The format `name`; UsageError where there is none."""
    if name not in formats():
        likely = nearest(name, formats())
        help = f"did you mean {likely}?" if likely else f"known formats: {', '.join(formats())}"
        raise UsageError(f"there is no format {name!r}", help=help)
    return cast(Format, importlib.import_module(f"vitcli.deploy.formats.{name}"))


def open_format(name: str, *, to: str = "run") -> Format:
    """The format `name`, once the packages it needs `to` "run" or "export" are found."""
    found = format_of(name)
    need(found.TO_RUN if to == "run" else found.TO_EXPORT, extra=found.EXTRA, why=f"the format {name}")
    return found


def need(packages: Iterable[str], *, extra: str, why: str) -> None:
    """UsageError unless all `packages` are installed; the text names what to install."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        cure = "pip install torch torchvision" if "torch" in missing else f"pip install 'vitcli[{extra}]'"
        raise UsageError(f"{why} needs {', '.join(missing)}", help=cure)


def plain(value: Any) -> np.ndarray:
    """A C-contiguous array, as runtimes like it."""
    return np.ascontiguousarray(value)
