"""Suppresses the output of exporters; their errors are exceptions."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


def no_telemetry() -> None:
    """Stop OpenVINO and NNCF from reporting each import and call to a server; call this before importing them."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@contextlib.contextmanager
def quiet(*, native: bool = False) -> Iterator[None]:
    """Suppress prints, warnings and log lines, and the standard error of `native` code; not if VITCLI_VERBOSE=1."""
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
    """Redirect the file descriptor 2 to the null device."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
