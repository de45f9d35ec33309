"""Counts the images that could not be read and were replaced, lists them, and ends the run when there are many."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from vitcli.data.batch import Batch
from vitcli.distributed import gathered
from vitcli.errors import DataError


class BadImages:
    """The record of one rank.

    Args:
        file: bad_images.jsonl of the run; one line per replacement.
        max_ratio: share of the `of` images of the split that may be unreadable, over all ranks; one always may.
    """

    def __init__(self, file: Path, *, max_ratio: float, of: int) -> None:
        self.file = file
        self.most = max(1, int(max_ratio * of))
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []  # of the run that is continued
        self.names: set[str] = {json.loads(line)["name"] for line in lines if line.endswith("}")}

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; what is unreadable in them is recorded.

        Raises:
            DataError: this rank alone has met too many.
        """
        for batch in batches:
            if batch.bad:
                with self.file.open("a", encoding="utf-8") as file:
                    for sample in batch.bad:
                        line = {"step": batch.step, "name": sample.name, "reason": sample.reason}
                        file.write(json.dumps(line) + "\n")
                        self.names.add(sample.name)
                self._refuse(self.names)
            yield batch

    def check(self) -> None:
        """Every rank must call it.

        Raises:
            DataError: all ranks together have met too many.
        """
        self._refuse(self.of_all_ranks())

    def of_all_ranks(self) -> set[str]:
        """The names of all unreadable images; every rank must call it."""
        return set().union(*gathered(self.names))

    def _refuse(self, names: set[str]) -> None:
        if len(names) > self.most:
            raise DataError(
                f"{len(names)} images are unreadable, more than max_bad_ratio allows",
                help=f"they are listed in {self.file}; fix or remove them, or raise max_bad_ratio",
            )
