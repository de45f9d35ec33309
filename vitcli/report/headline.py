"""The head of a report: the result first, then what it was reached with, and what is worth knowing about it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.statistics import expected_calibration_error, wilson
from vitcli.report.classes import frequent_confusions
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.in_words import duration
from vitcli.report.markup import Html, many, tag, unbroken
from vitcli.report.run_record import RunRecord

#: number of an evaluator -> what it is called
METRIC_NAMES = {
    "top1": "top-1", "mAP": "mAP", "knn_top1": "kNN top-1", "probe_top1": "linear probe top-1",
    "f1_micro": "F1 (micro)", "f1_macro": "F1 (macro)",
}  # fmt: skip
#: difference of two results, in percent, that is shown as one
_ROUNDING = 0.005


@dataclass(frozen=True)
class Headline:
    """The result in a few characters, and where it comes from in a sentence."""

    result: str  #: 82.89 % top-1
    sentence: str
    is_measured: bool  #: now, image by image; otherwise it is what the log says


def headline_of(record: RunRecord | None, evaluation: EvaluatedNetwork | None) -> Headline:
    """What was measured now; else the best value of the log; else that there is none."""
    if evaluation and isinstance(evaluation.answers, ImageAnswers):
        answers = evaluation.answers
        right, total = int(answers.correct.sum()), len(answers)
        low, high = wilson(right, total)
        said = f"{right:,} of {total:,} validation images right; 95 % interval {100 * low:.2f} – {100 * high:.2f} %."
        return Headline(f"{100 * right / total:.2f} % top-1", said, True)
    if evaluation and "mAP" in evaluation.numbers:
        numbers = evaluation.numbers
        over = f"{numbers['num_classes']:.0f} classes, {numbers['num_images']:,.0f} validation images"
        said = f"Mean average precision over {over}; F1 {numbers['f1_micro']:.2f} % (micro)."
        return Headline(f"{numbers['mAP']:.2f} % mAP", said, True)
    for metric, name in METRIC_NAMES.items():
        if evaluation and metric in evaluation.numbers:
            said = "Measured on the validation images; which of them are right was not kept."
            return Headline(f"{evaluation.numbers[metric]:.2f} % {name}", said, True)
    if record and record.best is not None and record.metric:
        name = METRIC_NAMES.get(record.metric, record.metric)
        epoch = f"in epoch {record.best_epoch}" if record.best_epoch is not None else ""
        return Headline(f"{record.best:.2f} % {name}", f"The best value that the run logged, {epoch}.", False)
    return Headline("No result", "Nothing was evaluated.", False)


def head(record: RunRecord | None, evaluation: EvaluatedNetwork | None, name: str) -> Html:
    """The result as the title of the page, the facts, and sentences about what stands out."""
    headline = headline_of(record, evaluation)
    when = time.strftime("%d %B %Y", time.localtime(record.last_seen)).lstrip("0") if record else ""
    kicker = " · ".join(filter(None, ["vitcli report", name, when]))
    facts = [(what, value) for what, value in _facts(record, evaluation) if value]
    findings = [*_findings(record, evaluation, headline)]
    return many([
        tag("p", kicker, class_="kicker"),
        tag("h1", headline.result),
        tag("p", unbroken(headline.sentence), class_="subject"),
        tag("dl", *(tag("div", tag("dt", what), tag("dd", value)) for what, value in facts), class_="key"),
        tag("ul", *(tag("li", unbroken(finding)) for finding in findings), class_="findings") if findings else None,
    ])  # fmt: skip


def _facts(record: RunRecord | None, evaluation: EvaluatedNetwork | None) -> Iterator[tuple[str, str]]:
    recipe = evaluation.recipe.flat() if evaluation else record.recipe if record else {}
    yield "model", str(recipe.get("model", ""))
    if evaluation and evaluation.num_parameters:
        yield "parameters", f"{evaluation.num_parameters / 1e6:.2f} million"
    size = recipe.get("image_resize")
    yield "image size", f"{size} px" if isinstance(size, int) else " × ".join(map(str, size or [])) + " px" * bool(size)
    if record:
        planned = record.num_epochs
        done = f"{record.epoch:g}"
        yield "epochs", f"{done} of {planned}" if planned and float(planned) != record.epoch else done
        yield "best epoch", "" if record.best_epoch is None else f"{record.best_epoch}"
        yield "training time", duration(record.seconds)
        yield "status", "" if record.status == "done" else record.status
    if evaluation and isinstance(evaluation.answers, ImageAnswers):
        yield "validation loss", f"{evaluation.answers.losses.mean():.3f}"


def _findings(record: RunRecord | None, evaluation: EvaluatedNetwork | None, headline: Headline) -> Iterator[str]:
    if evaluation and isinstance(evaluation.answers, ImageAnswers):
        yield from _about_classes(evaluation.answers)
        yield _about_calibration(evaluation.answers)
    if record:
        yield from _about_run(record, evaluation)
    if not headline.is_measured:
        yield from (evaluation.notes if evaluation else ())


def _about_classes(answers: ImageAnswers) -> Iterator[str]:
    seen = [one for one in answers.per_class() if one.recall is not None]
    if len(seen) < 2:
        return
    worst = min(seen, key=lambda one: one.recall or 0.0)
    low, high = worst.recall95
    yield (
        f"Class {worst.name} is found least often: {worst.num_hits:,} of {worst.num_images:,} images, "
        f"{100 * (worst.recall or 0):.1f} % (95 % interval {100 * low:.0f} – {100 * high:.0f} %)."
    )
    matrix = answers.confusion()
    for true, predicted, count in frequent_confusions(matrix, 1):
        share = 100 * count / matrix[true].sum()
        names = answers.class_names
        what = f"{count:,} images of {names[true]} ({share:.1f} %) are taken for {names[predicted]}"
        yield f"The most frequent confusion: {what}."


def _about_calibration(answers: ImageAnswers) -> str:
    ece = 100 * expected_calibration_error(answers.confidence, answers.correct)
    gap = 100 * (float(answers.confidence.mean()) - float(answers.correct.mean()))
    tendency = "too sure" if gap > 0 else "not sure enough"
    overall = f"overall the network is {tendency} by {abs(gap):.1f}"
    return f"Probabilities are off by {ece:.1f} points on average (ECE); {overall}."


def _about_run(record: RunRecord, evaluation: EvaluatedNetwork | None) -> Iterator[str]:
    if record.best is not None and record.last is not None and record.best - record.last > _ROUNDING:
        below = f"{record.best - record.last:.2f} points less than the best one"
        yield f"The last epoch reached {record.last:.2f} %, {below}."
    if len(record.values) > 1:
        yield "The best epoch was chosen on these same images, so its result is somewhat too good for new ones."
    now = evaluation.numbers.get(record.metric or "") if evaluation else None
    if now is not None and record.best is not None and abs(now - record.best) > _ROUNDING:
        yield f"The training itself logged {record.best:.2f} % for its best epoch; the images or the machine differ."
