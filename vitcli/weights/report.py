"""What happened to each tensor when weights were loaded into a model."""

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """Names of tensors in the model."""

    matched: list[str] = field(default_factory=list)  # copied unchanged
    resized: list[str] = field(default_factory=list)  # copied after resizing
    missing: list[str] = field(default_factory=list)  # of the model, left at their initial values
    unexpected: list[str] = field(default_factory=list)  # of the file, not used
    notes: list[str] = field(default_factory=list)  # reasons for the last three

    def lines(self) -> list[str]:
        """The report as text."""
        counts = [f"{len(self.matched)} tensors loaded"]
        for word in ("resized", "missing", "unexpected"):
            names = getattr(self, word)
            if names:
                counts.append(f"{len(names)} {word} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
        return ["; ".join(counts), *self.notes]
