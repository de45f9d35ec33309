"""The part of a report about the training: loss, rate, speed and what each evaluation found, over epochs."""

from collections.abc import Iterable, Sequence

from vitcli.report.markup import Html
from vitcli.report.metrics_file import Line as LogLine
from vitcli.report.page import Section, facts, figure, grid
from vitcli.report.run_record import RunRecord, number
from vitcli.report.svg import LEAST_SMOOTHED, Line, line_chart, short_number

#: keys of a line that are no measurement
_PLACES = ("kind", "step", "epoch", "time", "seconds")
#: key -> title, unit; others are shown under their names
_TITLES = {
    "loss": ("Training loss", ""),
    "lr": ("Learning rate", ""),
    "images_per_second": ("Training speed", "images per second"),
    "data_wait_ratio": ("Waiting for data", "% of the time"),
    "top1": ("Top-1", "%, validation"),
    "top5": ("Top-5", "%, validation"),
    "nll": ("Validation loss", "negative log-likelihood, nats"),
    "mAP": ("Mean average precision", "%, validation"),
    "f1_micro": ("F1, micro", "%, validation"),
    "f1_macro": ("F1, macro", "%, validation"),
    "knn_top1": ("kNN top-1", "%, validation"),
    "probe_top1": ("Linear probe top-1", "%"),
    "probe_top5": ("Linear probe top-5", "%, validation"),
    "probe_nll": ("Linear probe loss", "validation, nats"),
    "byol_loss": ("BYOL loss", ""),
    "tau": ("Decay of the target", "per step"),
    "z_std": ("Spread of the projections", "standard deviation"),
    "feature_std": ("Spread of the features", "standard deviation"),
    "effective_rank": ("Effective rank of the features", ""),
    "loss_scale": ("Loss scale", "fp16"),
}
_FROM_ZERO = ("lr", "images_per_second", "data_wait_ratio")
#: among these lines every number of the training appears
_FIRST_LINES = 50
#: of the machine, not of the network
_LAST = ("lr", "images_per_second", "data_wait_ratio")


def training_section(records: Sequence[RunRecord], labels: Sequence[str] = ("",)) -> Section:
    """One small chart for each number that was logged; the runs over each other, with their `labels` at the ends."""
    section = Section("Training")
    series = {name: _lines(name, records, labels) for name in _names(records)}
    series = {name: lines for name, lines in series.items() if not _is_constant(name, lines)}
    if not series:
        section.lead = "Nothing was logged: metrics.jsonl is missing or empty."
        return section
    curves = {name: lines for name, lines in series.items() if any(len(line.xs) > 1 for line in lines)}
    once = {name: lines for name, lines in series.items() if name not in curves}
    if curves:
        section.lead = "The last value stands at the end of each line."
        if any(line.smooth and len(line.xs) >= LEAST_SMOOTHED for lines in curves.values() for line in lines):
            section.lead += " Thin lines are the values of the log, thick ones their moving average."
        if len(records) > 1:
            section.lead = "Letters are those of the table of runs."
        section.parts.append(grid(_chart(name, lines) for name, lines in curves.items()))
    if once:
        rows = [(_title(name), "; ".join(map(_last_value, lines))) for name, lines in once.items()]
        section.parts.append(facts(rows, caption="Numbers that were found once"))
    return section


def _names(records: Sequence[RunRecord]) -> list[str]:
    """What was logged: the loss, then what evaluations found, then other numbers of the training, then the machine."""
    train = _keys(line for record in records for line in record.train_lines)
    val = _keys(line for record in records for line in record.val_lines)
    primary = [record.metric for record in records if record.metric in val]
    first = ["loss", *primary, *val, *train]
    return [name for name in dict.fromkeys(first) if name not in _LAST] + [name for name in _LAST if name in train]


def _keys(lines: Iterable[LogLine]) -> list[str]:
    """Names of numbers, in the order in which they appear; a name that has a class in it is left to the table."""
    found: dict[str, None] = {}
    for line in lines:  # thousands, nearly all of which have the same names
        if not line.keys() <= found.keys():
            found |= dict.fromkeys(name for name in line if number(line[name]) is not None)
    return [name for name in found if name not in _PLACES and "." not in name]


def _lines(name: str, records: Sequence[RunRecord], labels: Sequence[str]) -> list[Line]:
    """A number over epochs: of the training if it was logged there, else of the evaluations."""
    factor = 100.0 if name == "data_wait_ratio" else 1.0
    lines = []
    for color, (record, label) in enumerate(zip(records, labels, strict=True)):
        of_training = any(name in line for line in record.train_lines[:_FIRST_LINES])
        xs, ys = _points(record.train_lines if of_training else record.val_lines, name, factor)
        if xs:
            lines.append(Line(xs, ys, label, color, smooth=of_training and name != "lr" and len(records) == 1))
    return lines


def _is_constant(name: str, lines: Sequence[Line]) -> bool:
    """Whether there is nothing to see: no values, no waiting, or five classes among the five most likely."""
    values = {value for line in lines for value in line.ys}
    return values <= {0.0} or (name.endswith("top5") and values == {100.0})


def _chart(name: str, lines: Sequence[Line]) -> Html:
    title, unit = _TITLES.get(name, (name, ""))
    said = "; ".join(map(_in_words, lines))
    chart = line_chart(lines, description=f"{title}: {said}", from_zero=name in _FROM_ZERO)
    return figure(chart, title, unit)


def _title(name: str) -> str:
    title, unit = _TITLES.get(name, (name, ""))
    return f"{title}, {unit}" if unit else title


def _last_value(line: Line) -> str:
    return f"{line.label} {short_number(line.ys[-1])}".strip()


def _points(lines: Sequence[LogLine], name: str, factor: float) -> tuple[list[float], list[float]]:
    """Epochs and values; where a line has no epoch, its step."""
    xs, ys = [], []
    for line in lines:
        value, place = number(line.get(name)), number(line.get("epoch"))
        if value is not None:
            xs.append(float(line["step"] if place is None else place))
            ys.append(factor * value)
    return xs, ys


def _in_words(line: Line) -> str:
    ends = f"from {short_number(line.ys[0])} to {short_number(line.ys[-1])}"
    between = f", lowest {short_number(min(line.ys))}, highest {short_number(max(line.ys))}"
    return (f"{line.label} " if line.label else "") + ends + between
