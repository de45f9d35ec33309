"""Counts the training images that could not be read and were replaced, and ends the run when there are many.

All that a run met are listed in one file; those of an evaluation, which replaces none, have `"during": "evaluation"`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitcli.data.batch import BadSample, Batch
from vitcli.disk import AppendedFile, Faults, write_whole
from vitcli.distributed import gathered
from vitcli.errors import DataError, DiskError

#: the file in the folder of a run
BAD_IMAGES = "bad_images.jsonl"


class BadImages:
    """The record of one rank.

    Args:
        file: bad_images.jsonl of the run; one line per replacement, or per image of an evaluation that failed.
        faults: where it is noted if the disk refuses the file.
        max_ratio: share of the `of` images of the split that may be unreadable, over all ranks; one always may.
    """

    def __init__(self, file: Path, *, max_ratio: float, of: int, faults: Faults | None = None) -> None:
        self.file = file
        self.lines = AppendedFile(file, faults or Faults())
        self.most = max(1, int(max_ratio * of))
        self.names: set[str] = {line["name"] for line in self._replaced()}  # those of the run that is continued

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; what is unreadable in them is recorded.

        Raises:
            DataError: this rank alone has met too many.
        """
        for batch in batches:
            if batch.bad:
                found = [{"step": batch.step, "name": s.name, "reason": s.reason} for s in batch.bad]
                self.lines.append("".join(json.dumps(line) + "\n" for line in found).encode())
                self.names |= {sample.name for sample in batch.bad}
                self._refuse(self.names)
            yield batch

    def list_evaluated(self, step: int, bad: Sequence[BadSample]) -> None:
        """List what an evaluation could not read, instead of what an earlier one could not; for rank 0."""
        if not bad and not unreadable_in_evaluation(self.file):
            return
        found = [{"step": step, "name": s.name, "reason": s.reason, "during": "evaluation"} for s in bad]
        lines = [json.dumps(line) + "\n" for line in [*self._replaced(), *found]]
        try:
            write_whole(self.file, "".join(lines))
        except DiskError as error:
            self.lines.faults.note(error)

    def check(self) -> None:
        """Every rank must call it.

        Raises:
            DataError: all ranks together have met too many.
        """
        self._refuse(self.of_all_ranks())

    def of_all_ranks(self) -> set[str]:
        """The names of all unreadable images; every rank must call it."""
        return set().union(*gathered(self.names))

    def _replaced(self) -> list[dict[str, Any]]:
        """The lines of the file about training images."""
        return [line for line in _lines(self.file) if "during" not in line]

    def _refuse(self, names: set[str]) -> None:
        if len(names) > self.most:
            raise DataError(
                f"{len(names)} images are unreadable, more than max_bad_ratio allows",
                help=f"they are listed in {self.file}; fix or remove them, or raise max_bad_ratio",
            )


def unreadable_in_evaluation(file: Path) -> list[str]:
    """The images that the last evaluation of the run with this bad_images.jsonl could not read."""
    return [line["name"] for line in _lines(file) if "during" in line]


def _lines(file: Path) -> list[dict[str, Any]]:
    """The last line of a killed process may be cut short."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]
