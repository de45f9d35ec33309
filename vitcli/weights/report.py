"""What became of each tensor when weights were put into a model."""

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """Names of tensors, as the model calls them."""

    matched: list[str] = field(default_factory=list)  # copied as they are
    resized: list[str] = field(default_factory=list)  # copied after a change of shape
    missing: list[str] = field(default_factory=list)  # of the model, left at their first values
    unexpected: list[str] = field(default_factory=list)  # of the file, not used
    notes: list[str] = field(default_factory=list)  # reasons for the last three, in words

    def lines(self) -> list[str]:
        """The report for people."""
        counts = [f"{len(self.matched)} tensors loaded"]
        for word in ("resized", "missing", "unexpected"):
            names = getattr(self, word)
            if names:
                counts.append(f"{len(names)} {word} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
        return ["; ".join(counts), *self.notes]
