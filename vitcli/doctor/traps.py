"""Combinations that are known to fail or to be slow, and how to stay out of them."""

import platform
from collections.abc import Iterator
from pathlib import Path

from vitcli.doctor.finding import Finding

#: from this version on, training FastViT in channels_last on a CPU ends in a segmentation fault inside PyTorch
_CHANNELS_LAST_CRASHES_FROM = (2, 15)


def find_traps(folder: Path) -> Iterator[Finding]:
    """Those that apply to what is installed here and to the place of the runs."""
    import importlib.metadata as metadata

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "0.0"
    yield from traps(torch, platform.release(), folder.absolute())


def traps(torch: str, kernel: str, folder: Path) -> Iterator[Finding]:
    """Args: the version of torch, the release of the system's kernel, and the absolute path of the runs."""
    if tuple(map(int, torch.split(".")[:2])) >= _CHANNELS_LAST_CRASHES_FROM:
        text = f"torch {torch} crashes where a FastViT in channels_last is trained on a CPU"
        yield Finding("note", text, "vitcli does not do it; keep your own scripts in contiguous_format")
    if "microsoft" in kernel.lower() and folder.is_relative_to("/mnt"):
        help = "copy data and runs to the Linux file system, such as ~/"
        yield Finding("note", f"{folder} is a Windows drive under WSL: small files are read very slowly", help)
