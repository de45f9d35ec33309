"""`vitcli data show`: what is in a data set, what cannot be read, and which validation images are in training too."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.datasets import build_parts
from vitcli.data.source import Source
from vitcli.data.survey import Survey, same_images, similar_images, survey
from vitcli.disk import check_writable
from vitcli.log import Reporter, phase
from vitcli.recipe.load import Recipe

#: lines of a list on the terminal; the JSON file has all of them
MOST_LINES = 10
#: of the 64 bits of two hashes that may differ for images that look alike
MOST_BITS = 2
#: pairs of such images after which the search ends
MOST_PAIRS = 100_000


def show(recipe: Recipe, json_file: Path | None = None) -> dict[str, Any]:
    """Print what is in the data set of `recipe`, and return the same as plain values, which go to `json_file` too.

    Raises:
        VitcliError: see `errors.py`; the data set cannot be opened.
    """
    check_writable(json_file)
    reporter = Reporter(enabled=True)
    with phase("listing images"):
        sources = build_parts(recipe.dataset, recipe.system.seed)
    if "val" not in sources:
        sources = {"images": sources["train"]}
    reporter.notes(*(source.notes for source in sources.values()))
    found = {name: _read(name, source) for name, source in sources.items()}
    facts: dict[str, Any] = {name: _facts(some) for name, some in found.items()}
    for name in found:
        _say_split(reporter, name, facts[name])
    if "val" in found:
        with phase("comparing the splits"):
            facts["leaks"] = _duplicates(found["train"], found["val"])
            facts["similar"] = _similar(found["train"], found["val"])
        num_leaks = len({pair["images"][1] for pair in facts["leaks"]})
        total = len(found["val"].indices)
        reporter.say(f"{num_leaks:,} of {total:,} validation images are in training too, with equal pixels")
        _list(reporter, [_line(pair) for pair in facts["leaks"]])
        num_similar = f"{len(facts['similar']):,}" + (" or more" if len(facts["similar"]) >= MOST_PAIRS else "")
        reporter.say(
            f"other pairs of a training and a validation image that look alike, the most alike first: {num_similar}"
        )
        _list(reporter, [_line(pair) for pair in facts["similar"]])
    if json_file:
        json_file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return facts


def _say_split(reporter: Reporter, name: str, facts: dict[str, Any]) -> None:
    reporter.table(name, _rows(facts))
    _list(reporter, [f"{bad['name']}: {bad['reason']}" for bad in facts["unreadable"]])
    if twice := facts["duplicates"]:
        conflicts = [pair for pair in twice if pair["classes"][0] != pair["classes"][1]]
        differently = "with other labels" if "labels_per_image" in facts else "in another class"
        in_words = f"; {differently}: {len(conflicts):,}" if facts["class_counts"] else ""
        reporter.say(f"{name} images that equal an earlier one: {len(twice):,}{in_words}")
        _list(reporter, [_line(pair) for pair in conflicts])


def _read(name: str, source: Source) -> Survey:
    with phase(f"reading {name}", len(source)) as advance:
        return survey(source, lambda: advance(1))


def _facts(found: Survey) -> dict[str, Any]:
    widths, heights = found.sizes.T
    return {
        "num_images": len(found.source),
        "class_counts": found.source.class_counts(),
        **_labels_per_image(found.source),
        "modes": dict(Counter(found.modes).most_common()),
        "width": _range(widths),
        "height": _range(heights),
        "unreadable": [{"name": found.source.name(index), "reason": reason} for index, reason in found.unreadable],
        "duplicates": _duplicates(found, found),
    }


def _labels_per_image(source: Source) -> dict[str, Any]:
    """Of multi-label data."""
    if source.targets is None or not source.multi_label:
        return {}
    counts = source.targets.sum(1)
    found = {"mean": round(float(counts.mean()), 3), "max": int(counts.max()), "num_without": int((counts == 0).sum())}
    return {"labels_per_image": found}


def _range(values: np.ndarray) -> dict[str, int]:
    """In px; empty without images."""
    if not len(values):
        return {}
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("images", f"{facts['num_images']:,}"), ("unreadable", f"{len(facts['unreadable']):,}")]
    counts = {name: count for name, count in facts["class_counts"].items() if count}
    if counts:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        words = [f"{name} {count:,}" for name, count in ordered]
        shown = words if len(words) <= MOST_LINES else [*words[:3], "…", *words[-3:]]
        ratio = ordered[0][1] / ordered[-1][1]
        imbalance = f"the largest class has {ratio:.3g} times as many images as the smallest"
        rows.append(("classes", f"{len(counts):,}: {', '.join(shown)}"))
        if found := facts.get("labels_per_image"):
            words = f"{found['mean']:.3g} per image on average, at most {found['max']}"
            rows.append(("labels", f"{words}; {found['num_without']:,} images have none"))
        rows.append(("imbalance", imbalance if ratio > 1 else "none"))
    sizes = [facts[side] for side in ("width", "height")]
    if all(sizes):
        words = [f"{size['min']:,} to {size['max']:,}, median {size['median']:,}" for size in sizes]
        rows += [("width", f"{words[0]} px"), ("height", f"{words[1]} px")]
    rows.append(("modes", ", ".join(f"{mode} {count:,}" for mode, count in facts["modes"].items())))
    return rows


def _duplicates(first: Survey, second: Survey) -> list[dict[str, Any]]:
    return [_pair(first, second, i, j) for i, j in same_images(first, second)]


def _similar(first: Survey, second: Survey) -> list[dict[str, Any]]:
    return [
        _pair(first, second, i, j) | {"bits": bits, "correlation": round(correlation, 4)}
        for i, j, bits, correlation in similar_images(first, second, MOST_BITS, MOST_PAIRS)
    ]


def _pair(first: Survey, second: Survey, i: int, j: int) -> dict[str, Any]:
    images = (first.source, int(first.indices[i])), (second.source, int(second.indices[j]))
    names = [source.name(index) for source, index in images]
    return {"images": names, "classes": [_classes_of(source, index) for source, index in images]}


def _classes_of(source: Source, index: int) -> list[str] | str | None:
    """The class of an image, the list of its classes in multi-label data, None without labels."""
    labels = source.labels(index)
    return labels if source.multi_label else next(iter(labels), None)


def _line(pair: dict[str, Any]) -> str:
    if "bits" in pair:
        return (
            " ~ ".join(pair["images"]) + f"  (correlation {pair['correlation']:.3f}, {pair['bits']} of 64 bits differ)"
        )
    return " = ".join(pair["images"])


def _list(reporter: Reporter, lines: list[str]) -> None:
    for line in lines[:MOST_LINES]:
        reporter.say(f"  {line}")
    if len(lines) > MOST_LINES:
        reporter.say(f"  … and {len(lines) - MOST_LINES:,} more; --json FILE lists all")
