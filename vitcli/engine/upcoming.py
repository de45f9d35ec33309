"""The batches of a run; the first of each step is loaded before the ranks agree to take that step."""

from collections.abc import Iterable, Iterator

from vitcli.data.batch import Batch


class Upcoming(Iterator[Batch]):
    """The same batches, and a look at the next one.

    What prevents it (an unreadable image, a killed worker) is thus known between two steps, when the state of every
    rank is complete: all of them can save it. In the middle of a step, the others would wait for this rank's gradients.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = iter(batches)
        self.loaded: Batch | None = None

    def look(self) -> Exception | None:
        """Load the next batch, which must exist; returns the error that prevents it."""
        try:
            self.loaded = next(self.batches) if self.loaded is None else self.loaded
        except Exception as error:
            return error
        return None

    def __next__(self) -> Batch:
        batch, self.loaded = self.loaded, None
        return next(self.batches) if batch is None else batch
