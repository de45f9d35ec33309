"""The result of `vitcli predict` for many images together: a line for each class, and how many answers are right."""

import os
from collections import defaultdict

from vitcli.data.class_names import class_name
from vitcli.deploy.predictions import Answer
from vitcli.errors import printable
from vitcli.evaluators.statistics import wilson

_MOST_LINES = 20
#: what an image has that has none of the classes
_NONE = "none"


class Summary:
    """Counts answers. Where folders are named like classes of the network, also how many answers are right.

    multi_label: whether an image may have any number of classes; then it counts for each that it has.
    """

    def __init__(self, class_names: list[str], *, multi_label: bool) -> None:
        self._class_names = {class_name(name): name for name in class_names}
        self._multi_label = multi_label
        self._probabilities: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])  # class -> count, sum
        self.num_images = self.num_named = self.num_right = 0

    def add(self, answer: Answer) -> None:
        if answer.error:
            return
        self.num_images += 1
        for name, probability in answer.predictions[: None if self._multi_label else 1] or [(_NONE, 0.0)]:
            self._probabilities[name][0] += 1
            self._probabilities[name][1] += probability
        named = self._class_names.get(class_name(os.path.basename(os.path.dirname(os.path.abspath(answer.path)))))
        if named is not None and not self._multi_label:
            self.num_named += 1
            self.num_right += answer.predictions[0][0] == named

    def text(self) -> str:
        """A table with the most frequent class first, and a line about the folders; without control characters."""
        found = sorted(self._probabilities.items(), key=lambda item: (-item[1][0], item[0]))
        rows = [("class", "images", "mean probability")]
        for name, (count, total) in found[:_MOST_LINES]:
            mean = "" if name == _NONE and not total else f"{100 * total / count:.2f} %"
            rows.append((printable(name), f"{count:,}", mean))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        if hidden := found[_MOST_LINES:]:
            more = f"… and {len(hidden):,} more class{'es' * (len(hidden) > 1)} with"
            lines.append(f"{more} {sum(int(n) for _, (n, _) in hidden):,} images")
        return "\n".join([*lines, self._accuracy()] if self.num_named else lines)

    def _accuracy(self) -> str:
        low, high = (100 * bound for bound in wilson(self.num_right, self.num_named))
        share = f"{100 * self.num_right / self.num_named:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        others = self.num_images - self.num_named
        elsewhere = f"; {others:,} image{'s are in other folders' if others > 1 else ' is in another folder'}"
        right = f"{self.num_right:,} of {self.num_named:,} right"
        return f"the folders name classes: {right}, {share}{elsewhere if others else ''}"
