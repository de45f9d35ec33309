"""The part of a report about probabilities: whether an image that the network is 80 % sure of is right in 80 %."""

from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.statistics import NUM_BINS, brier, expected_calibration_error, reliability_bins
from vitcli.report.page import Section, facts, figure, grid
from vitcli.report.svg import reliability_chart


def calibration_section(answers: ImageAnswers, temperature: float = 1.0) -> Section:
    """The reliability of the probabilities, and the numbers that sum it up.

    temperature: by which the logits of the answers were divided.
    """
    bins = reliability_bins(answers.confidence, answers.correct)
    ece = expected_calibration_error(answers.confidence, answers.correct)
    sure, right = float(answers.confidence.mean()), float(answers.correct.mean())
    section = Section("Calibration", lead=_lead(sure, right))
    description = f"Reliability diagram: {100 * sure:.1f} % mean probability, {100 * right:.1f} % accuracy"
    chart = reliability_chart(
        [one.confidence for one in bins],
        [one.accuracy for one in bins],
        [one.num_images for one in bins],
        description=description,
    )
    rows = [
        ("expected calibration error (ECE)", f"{100 * ece:.2f} %, {NUM_BINS} bins of equal width"),
        ("mean probability of the answer", f"{100 * sure:.2f} %"),
        ("accuracy", f"{100 * right:.2f} %"),
        ("negative log-likelihood", f"{float(answers.losses.mean()):.4f} nats"),
        ("Brier score", f"{brier(answers.probabilities, answers.targets):.4f}, from 0 to 2"),
    ]
    if temperature != 1:
        before = answers.with_temperature(1 / temperature)
        of_before = expected_calibration_error(before.confidence, before.correct)
        rows.append(("temperature", f"{temperature:.3f}, as stored; without it, ECE is {100 * of_before:.2f} %"))
    note = "accuracy in %, over the mean probability of the images in a bin; areas are numbers of images"
    section.parts.append(
        grid([figure(chart, "Reliability", note, kind="square"), facts(rows, caption="Calibration")], "columns")
    )
    return section


def _lead(sure: float, right: float) -> str:
    gap = 100 * (sure - right)
    if abs(gap) < 1:
        verdict = "On average the probabilities are as large as they should be."
    elif gap > 0:
        verdict = f"On average the network is {gap:.1f} points too sure of itself."
    else:
        verdict = f"On average the network is {-gap:.1f} points less sure than it is right."
    return verdict + " Dots on the diagonal are as often right as their probability says."
