"""Fits a temperature on one half of the images, and measures on the other half what it changes."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitcli.data.streams import stream_seed
from vitcli.errors import DataError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.statistics import expected_calibration_error, fit_temperature


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and negative log-likelihood (nats) and calibration error (0..1) on images that it has not seen."""

    temperature: float
    num_fitted: int  #: images
    num_measured: int  #: other images
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    @property
    def helps(self) -> bool:
        return self.nll_after < self.nll_before

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """The rows of a table."""
        return [
            ("temperature", f"{self.temperature:.4f}, fitted on one half of the images, {self.num_fitted:,}"),
            ("other half", f"{self.num_measured:,} images"),
            ("  NLL", f"{self.nll_before:.4f} before, {self.nll_after:.4f} after"),
            ("  ECE", f"{100 * self.ece_before:.2f} % before, {100 * self.ece_after:.2f} % after"),
        ]


def fitted(answers: ImageAnswers) -> FittedTemperature:
    """The temperature for `answers`, which must be those of temperature 1.

    Raises:
        DataError: no temperature is best for the images that it is fitted on.
    """
    for_fit, for_measure = halves(answers)
    temperature = fit_temperature(for_fit.logits, for_fit.targets)
    if temperature is None:
        all_right = bool(for_fit.correct.all())
        why = "all of them are right" if all_right else "the network is no better than chance"
        message = f"no temperature can be fitted on {len(for_fit):,} images: {why}"
        raise DataError(message, help="give more images, or those of a harder validation split")
    after = for_measure.with_temperature(temperature)
    measured = [
        (float(one.losses.mean()), expected_calibration_error(one.confidence, one.correct))
        for one in (for_measure, after)
    ]
    nll, ece = zip(*measured, strict=True)
    return FittedTemperature(temperature, len(for_fit), len(for_measure), *nll, *ece)


def halves(answers: ImageAnswers) -> tuple[ImageAnswers, ImageAnswers]:
    """Each class in equal parts, to one image: a function of the names, so that it is the same on every call."""
    seeds = [stream_seed(f"calibration {name}", 0) for name in answers.names]
    order = np.lexsort([np.array(seeds), answers.targets])
    return answers.select(np.sort(order[::2])), answers.select(np.sort(order[1::2]))
