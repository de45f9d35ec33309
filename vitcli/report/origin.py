"""The parts of a report about where a result comes from: recipe, data, environment, and the commands to go on with."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcli.recipe.write import yaml_value
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.markup import Content, Html, tag
from vitcli.report.page import Column, Section, commands, details, facts, numbers, table
from vitcli.report.run_record import PLACES, RunRecord, number
from vitcli.report.svg import bar

#: classes whose numbers of images are shown; of more, this many of each end
_MOST_CLASSES, _NUM_ENDS = 50, 12
#: characters of a value; lists of a thousand weights say nothing
_MOST_SHOWN = 160
#: keys that say how an image becomes the input of a network
_PREPROCESSING = ("image_resize", "crop_pct", "interpolation", "mean", "std", "in_channels")


def recipe_section(record: RunRecord) -> Section:
    """The keys that differ from the shipped recipe, or from the defaults, and all keys to unfold."""
    section = Section("Recipe")
    if not record.recipe:
        section.lead = "recipe.yaml is missing or cannot be read."
        return section
    shipped = record.shipped
    differing = record.differs_from_shipped()
    against = f"the shipped recipe {shipped}" if shipped else "the defaults"
    section.lead = f"{len(differing)} keys differ from {against}." if differing else f"All keys are those of {against}."
    if differing:
        columns = [Column("key"), Column("this run", "name"), Column(shipped or "default", "name")]
        rows = [(_code(name), _value(now), _quiet(before)) for name, (before, now) in differing.items()]
        section.parts.append(table(columns, rows, caption="Keys that differ"))
    rows = [(_code(name), _value(value)) for name, value in record.recipe.items() if name not in PLACES]
    section.parts.append(details(f"All {len(rows)} keys", facts(rows, caption="All keys of the recipe")))
    return section


def data_section(record: RunRecord, notes: Sequence[str]) -> Section:
    """Images of each split and class as the run had them, and what was noted of the data since."""
    section = Section("Data")
    splits = {name: record.data.get(name) for name in ("train", "val")}
    known = {name: facts for name, facts in splits.items() if isinstance(facts, dict)}
    place = record.recipe.get("data_dir") or record.recipe.get("dataset")
    section.lead = f"{place}, as it was when the run began." if place else ""
    if not known:
        section.parts.append(tag("p", "data.json is missing: the images of the run are not known.", class_="note"))
    else:
        section.parts.append(_split_table(known))
    section.parts += [tag("p", note, class_="note") for note in notes]
    counts = {name: counts for name, facts in known.items() if (counts := _class_counts(facts))}
    if counts:
        section.parts += _class_counts_table(counts)
    return section


def _split_table(known: Mapping[str, Mapping[str, Any]]) -> Html:
    headings = ("images", "classes", "smallest class", "largest class", "largest / smallest")
    columns = [Column("split"), *numbers(*headings)]
    rows = []
    for name, found in known.items():
        counts = [count for count in _class_counts(found).values() if count]
        least, most = (min(counts), max(counts)) if counts else (0, 0)
        ratio = f"{most / least:.2f}" if counts else ""
        images = number(found.get("num_images"))
        shown = [f"{value:,.0f}" if value else "" for value in (images, len(counts), least, most)]
        rows.append(({"train": "training", "val": "validation"}[name], *shown, ratio))
    return table(columns, rows, caption="Images of each split")


def _class_counts(found: Mapping[str, Any]) -> dict[str, int]:
    counts = found.get("class_counts")
    counts = counts if isinstance(counts, dict) else {}
    return {name: int(count) for name, count in counts.items() if number(count) is not None}


def _class_counts_table(counts: Mapping[str, Mapping[str, int]]) -> list[Html]:
    """Classes by their number of training images; of many those with the most and the fewest."""
    first = next(iter(counts.values()))
    ordered = sorted(first, key=lambda name: -first[name])
    hidden = len(ordered) - 2 * _NUM_ENDS
    if len(ordered) > _MOST_CLASSES:
        ordered = [*ordered[:_NUM_ENDS], *ordered[-_NUM_ENDS:]]
    largest = max(max(first.values()), 1)
    names = {"train": "training", "val": "validation"}
    columns = [
        Column("class"),
        Column("share of the largest", "strip"),
        *(Column(names[split], "number") for split in counts),
    ]
    rows: list[Sequence[Content]] = [
        (name, bar(first[name] / largest), *(f"{of_split.get(name, 0):,}" for of_split in counts.values()))
        for name in ordered
    ]
    if len(first) > _MOST_CLASSES:
        between = (tag("span", f"… {hidden:,} classes between these", class_="quiet"), "", *("" for _ in counts))
        rows.insert(_NUM_ENDS, between)
    title = "Images of each class"
    return [tag("h3", title), table(columns, rows, caption=title)]


def network_section(network: EvaluatedNetwork) -> Section:
    """Of a network that no run is known of: its weights, how images become its input, and what was noted."""
    recipe = network.recipe
    place = recipe.dataset.data_dir or recipe.dataset.dataset
    rows: list[tuple[Content, Content]] = [("weights", network.source), ("images", str(place))]
    rows += [(_code(name), _value(recipe.get(name))) for name in _PREPROCESSING]
    section = Section("Network and data", [facts(rows, caption="Weights, images and preprocessing")])
    section.parts += [tag("p", note, class_="note") for note in network.notes]
    return section


def environment_section(record: RunRecord) -> Section:
    """Versions and machine, as env.json has them."""
    section = Section("Environment")
    known = {name: value for name, value in record.env.items() if name != "command" and value is not None}
    rows: list[tuple[str, Content]] = [(name.replace("_", " "), _value(value)) for name, value in known.items()]
    command = record.env.get("command")
    if isinstance(command, list) and command:
        rows.append(("command", _code(shlex.join(["vitcli", *map(str, command[1:])]))))
    if record.num_sessions > 1:
        rows.append(("sessions", f"{record.num_sessions}: the run was continued {record.num_sessions - 1} times"))
    if not rows:
        section.lead = "env.json is missing or cannot be read."
    else:
        section.parts.append(facts(rows, caption="Versions and machine of the training"))
    section.parts += [tag("p", note, class_="note") for note in record.notes]
    return section


def commands_section(run: Path, *, has_classes: bool) -> Section:
    """What to type to do it again, to go on, and to use the result."""
    path = shlex.quote(str(run))
    lines = [
        ("repeat it", f"vitcli train -c {shlex.quote(str(run / 'recipe.yaml'))}"),
        ("continue it, if it was stopped", f"vitcli train --resume {path}"),
    ]
    if has_classes:
        lines += [
            ("measure it again", f"vitcli validate {path}"),
            ("classify images", f"vitcli predict {path} IMAGES"),
            ("deploy it", f"vitcli export {path} --to onnx -o exported"),
        ]
    else:
        lines.append(("write features of images", f"vitcli embed {path} IMAGES -o features.npz"))
    return Section("Commands", [commands([*lines, ("make this report again", f"vitcli report {path} -o report.html")])])


def shown_value(value: Any) -> str:
    """As YAML has it, cut where it is long."""
    text = value if isinstance(value, str) else yaml_value(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _value(value: Any) -> Html:
    return _code(shown_value(value))


def _quiet(value: Any) -> Html:
    return tag("span", _value(value), class_="quiet")


def _code(text: str) -> Html:
    return tag("code", text)
