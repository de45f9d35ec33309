"""Keeps the chatter of exporters off the screen; what matters of it is an exception."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No prints, warnings or log lines below errors. VITCLI_VERBOSE=1 lets all through."""
    if os.environ.get("VITCLI_VERBOSE") == "1":
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
