"""A command on a terminal of its own: what it shows there, piece by piece."""

import os
import pty
import subprocess
from pathlib import Path

from tests.support.commands import environment, python_m


def on_terminal(*words: object, cwd: Path, columns: int = 100, **env: str) -> tuple[int, str]:
    """The exit code of `vitcli …`, and everything it writes, control sequences too, to a terminal of that width."""
    ours, its = pty.openpty()
    variables = environment(COLUMNS=str(columns), LINES="40", TERM="xterm-256color", **env)
    with subprocess.Popen(
        python_m("vitcli", *words), cwd=cwd, env=variables, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux: the last process has closed the terminal
                break
            if not piece:
                break
            pieces.append(piece)
        os.close(ours)
    return process.returncode, b"".join(pieces).decode()
