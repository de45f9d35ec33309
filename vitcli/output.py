"""Standard output and error that may be closed, full, or unable to show a character, without a traceback."""

import errno
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from vitcli.errors import DiskError, printable


class Output:
    """A text stream. Its reader may leave (`vitcli models ls | head -1`): the rest is dropped, and the command goes on.

    What the encoding lacks is written as `\\u4e2d`.

    Raises:
        DiskError: while writing: any other failure, because what the command had to say is lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: Any = stream.stream if isinstance(stream, Output) else stream
        with suppress(AttributeError, OSError):  # it is no text file, or another program's file by now
            self.stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop_the_rest(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop_the_rest(error)

    def on_failure(self, reason: str) -> None:
        raise DiskError(f"standard output cannot be written: {reason}", help="free some space, or write it elsewhere")

    def _drop_the_rest(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())  # what is still in its buffer goes there too
        os.close(null)
        if error.errno != errno.EPIPE:
            self.on_failure(error.strerror or str(error))


class OptionalOutput(Output):
    """The same for what is also written elsewhere: the command goes on, and stderr says so."""

    def on_failure(self, reason: str) -> None:
        note = f"note: output cannot be written ({printable(reason)}); the command goes on without it"
        print(note, file=sys.stderr, flush=True)
