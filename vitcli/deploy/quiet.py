"""Keeps the chatter of exporters off the screen; what matters of it is an exception."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


def no_telemetry() -> None:
    """OpenVINO and NNCF report each import and call to a server, by a package that they do without; call this first."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@contextlib.contextmanager
def quiet(*, native: bool = False) -> Iterator[None]:
    """No prints, warnings or log lines below errors. VITCLI_VERBOSE=1 lets all through.

    native: nor what compiled code writes to standard error past Python.
    """
    if os.environ.get("VITCLI_VERBOSE") == "1":
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if native:
                stack.enter_context(_stderr_closed())
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """The file descriptor 2 leads nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
