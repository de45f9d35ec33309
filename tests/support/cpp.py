"""The programs of deploy/cpp, built once for all tests and all of their processes."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from tests.support.commands import ROOT


def built(runtime: str, *choices: str, shared: Path, name: str | None = None) -> Path:
    """The folder of the programs `classify` and `pixels`; in `shared`, which is the same for all test processes.

    Args:
        choices: further words for cmake.
        name: of a build with other choices than those of the same runtime.
    """
    folder = shared / f"cpp_{name or runtime}"
    with (shared / f"cpp_{name or runtime}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "classify").exists():
            _build(runtime, folder, choices)
    return folder


def _build(runtime: str, folder: Path, choices: tuple[str, ...]) -> None:
    configure = ["cmake", "-S", ROOT / "deploy" / "cpp", "-B", folder]
    configure += [f"-DRUNTIME={runtime}", f"-DPYTHON={sys.executable}", *choices]
    if runtime == "onnxruntime":
        configure.append(f"-DONNXRUNTIME_DIR={os.environ['ONNXRUNTIME_DIR']}")
    for command in (configure, ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stderr, done.stderr
