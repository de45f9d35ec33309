"""The programs that run native folders: what this machine lacks for each, and how they are built and called."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tests.support.commands import ROOT

MOJO = Path(os.environ.get("VITCLI_MOJO", "/nowhere/mojo"))
SYCL_DIR = Path(os.environ.get("VITCLI_SYCL_DIR", "/nowhere"))
_HAS_CMAKE = bool(shutil.which("cmake") and shutil.which("c++"))
#: program -> why it cannot be built here, or an empty text
NOT_BUILT = {
    "cpp": "" if _HAS_CMAKE else "cmake and a C++ compiler are needed",
    "mojo": "" if MOJO.is_file() and _HAS_CMAKE else "VITCLI_MOJO does not name the program mojo",
    "sycl": "" if (SYCL_DIR / "include/sycl/sycl.hpp").is_file() and _HAS_CMAKE else "VITCLI_SYCL_DIR names no SYCL",
    "cuda": "" if shutil.which("nvcc") and _HAS_CMAKE else "nvcc is not installed",
}
#: program -> why it cannot be run here, or an empty text
NOT_RUN = NOT_BUILT | {"cuda": NOT_BUILT["cuda"] or ("" if torch.cuda.is_available() else "no GPU")}
#: runtime -> words for cmake
CHOICES = {"native": (), "sycl": (f"-DSYCL_DIR={SYCL_DIR}",), "cuda": ("-DCUDA_ARCHITECTURES=90",)}

#: a native folder and images -> (images, classes), probabilities or logits as the folder says
Numbers = Callable[[Path, Sequence[Path]], np.ndarray]


def built_by_mojo(shared: Path, program: str = "classify") -> Path:
    """A program of deploy/mojo; in `shared`, which is the same for all test processes."""
    out = shared / f"mojo_{program}"
    with (shared / "mojo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            environment = os.environ | {"PATH": f"{MOJO.parent}:{os.environ['PATH']}"}
            command = [MOJO, "build", ROOT / f"deploy/mojo/{program}.mojo", "-o", out]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
    return out


def sycl_environment(cache: Path) -> dict[str, str]:
    """Variables with which a program finds Intel's OpenCL for CPUs, and keeps its compiled kernels in `cache`."""
    return {
        "OCL_ICD_FILENAMES": str(SYCL_DIR / "lib/libintelocl.so"), "LD_LIBRARY_PATH": str(SYCL_DIR / "lib"),
        "SYCL_CACHE_PERSISTENT": "1", "SYCL_CACHE_DIR": str(cache),
    }  # fmt: skip


def numbers_of(name: str, build: Callable[..., Path], shared: Path) -> Numbers:
    """The program of this name, built now; it decodes the images itself, but for Mojo's, which gets C++'s pixels."""
    if name == "mojo":
        program, pixels = built_by_mojo(shared), build("native") / "pixels"
        return lambda folder, images: _numbers([program, folder, _seen(pixels, folder, images), "--logits"], images)
    runtime = "native" if name == "cpp" else name
    logits = build(runtime, *CHOICES[runtime]) / "logits"
    changes = sycl_environment(shared / "sycl_cache") if name == "sycl" else {}
    return lambda folder, images: _numbers([logits, folder, *images], images, **changes)


def _seen(pixels: Path, folder: Path, images: Sequence[Path]) -> Path:
    file = folder.parent / "seen.pam"
    with file.open("wb") as stream:
        subprocess.run([pixels, folder, *images], stdout=stream, check=True)
    return file


def _numbers(command: list, images: Sequence[Path], **changes: str) -> np.ndarray:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=os.environ | changes)
    assert (done.returncode, done.stderr) == (0, "")
    return np.array(done.stdout.split(), float).reshape(len(images), -1)
