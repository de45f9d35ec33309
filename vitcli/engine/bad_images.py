"""Counts the images that could not be read and were replaced, lists them, and ends the run when there are many."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vitcli.errors import DataError


class BadImages:
    """The ledger of one rank.

    Args:
        file: bad_images.jsonl of the run; a line per replacement.
        max_ratio: share of the `of` images of the split that may be unreadable; one always may.
    """

    def __init__(self, file: Path, *, max_ratio: float, of: int) -> None:
        self.file = file
        self.most = max(1, int(max_ratio * of))
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []  # of the run that is continued
        self.names: set[str] = {json.loads(line)["name"] for line in lines if line.endswith("}")}

    def watch(self, batches: Iterable) -> Iterator[Any]:
        """The same batches, looked through.

        Raises:
            DataError: too many are unreadable.
        """
        for batch in batches:
            if batch.bad:
                self._note(batch)
            yield batch

    def _note(self, batch: Any) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            for sample in batch.bad:
                file.write(json.dumps({"step": batch.step, "name": sample.name, "reason": sample.reason}) + "\n")
                self.names.add(sample.name)
        if len(self.names) > self.most:
            raise DataError(
                f"{len(self.names)} images are unreadable, more than max_bad_ratio allows",
                help=f"they are listed in {self.file}; mend or remove them, or raise max_bad_ratio",
            )
