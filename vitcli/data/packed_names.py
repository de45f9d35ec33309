"""Many strings in two arrays: a million `str` objects would be copied, page by page, into every worker process."""

import os
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np


class PackedNames:
    """Strings that cannot be changed, by position. Bytes that are not UTF-8 are kept, as in names of files."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    @classmethod
    def of(cls, text: np.ndarray, ends: np.ndarray) -> Self:
        """Those that such arrays hold: all bytes in a row, uint8, and where each name ends, int64."""
        names = cls(())
        names.text, names.ends = text, ends
        return names

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index > 0 else 0
        return os.fsdecode(self.text[start : self.ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        text, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield os.fsdecode(text[start:end])
            start = end
