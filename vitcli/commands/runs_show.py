"""`vitcli runs show`: everything about one run on a page, without torch."""

import shlex
import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from vitcli.catalog import names
from vitcli.engine.run_dir import write_result
from vitcli.log import SafeConsole
from vitcli.recipe.write import yaml_value
from vitcli.report import in_words
from vitcli.report.run_folders import find_run
from vitcli.report.run_list import epochs, facts
from vitcli.report.run_record import RunRecord
from vitcli.report.text_table import Column, table_lines, width_of
from vitcli.weights.checkpoint_folders import checkpoints, problems_in, step_of


def show(word: str, *, json_file: Path | None = None) -> None:
    """Print the status, recipe, data, results and checkpoints of a run, and what may be done with it.

    Every checkpoint is read and compared with its manifest.

    Raises:
        UsageError: there is no such run.
    """
    run = RunRecord(find_run(word))
    console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)
    width = width_of(console)
    saved = {folder: problems_in(folder) for folder in checkpoints(run.path)}
    differing = run.differs_from_shipped()
    for title, lines in {
        "run": _summary(run),
        _recipe_title(run): _recipe_lines(differing, width),
        "results": _results(run, width),
        "checkpoints": _checkpoint_lines(run, saved, width),
        "next": _next(run, saved),
    }.items():
        if lines:
            console.print(f"{escape(title)}", style="bold")
            for line in lines:
                console.print(f"  {escape(line)}")
    for note in run.notes:
        console.note(note)
    if json_file:
        valid = [{"step": step_of(folder), "problems": problems} for folder, problems in saved.items()]
        changed = {key: {"before": before, "now": now} for key, (before, now) in differing.items()}
        more = {"shipped_recipe": run.shipped, "differs": changed, "evaluations": run.val_lines, "checkpoints": valid}
        write_result(json_file, facts(run) | more)


def _summary(run: RunRecord) -> list[str]:
    """Label and value on each line."""
    sessions = f" in {run.num_sessions} sessions" if run.num_sessions > 1 else ""
    trained = "" if run.seconds is None else f", {in_words.duration(run.seconds)}{sessions}"
    age = in_words.duration(max(0.0, time.time() - run.last_seen))
    by = f", by {run.user}" if run.user else ""
    rows = {
        "folder": f"{run.path}, {in_words.size(run.num_bytes)}",
        "status": f"{run.status}{by}: {epochs(run)} epochs, step {run.step:,}{trained}",
        "written": f"{age} ago",
        "message": run.state.get("message") or run.state.get("stopped_early"),
        "data": _data(run),
        "model": run.recipe.get("model"),
        "machine": _machine(run.env),
        "command": _command(run.env.get("command")),
    }
    return [f"{label:<9} {value}" for label, value in rows.items() if value]


def _data(run: RunRecord) -> str:
    """`imagefolder DIR: 256 + 355 images, 10 classes`."""
    splits = [run.data.get(split) for split in ("train", "val")]
    found = [split.get("num_images") if isinstance(split, dict) else 0 for split in splits]
    counts = [f"{number:,}" if isinstance(number, int) else "?" for number in found]
    classes = run.data.get("class_names")
    labels = f"{len(classes)} classes" if isinstance(classes, list) else "no labels"
    images = f"{counts[0]} + {counts[1]} images, {labels}" if run.data else "not known"
    where = [run.recipe.get("dataset"), run.recipe.get("data_dir")]
    return f"{' '.join(str(word) for word in where if word)}: {images}"


def _machine(env: dict[str, Any]) -> str:
    versions = [f"{name} {env[name]}" for name in ("torch", "python") if name in env]
    processes = [f"{env['world_size']} processes"] if env.get("world_size", 1) != 1 else []
    where = [env.get("accelerator") or "cpu"] if env else []
    return ", ".join(map(str, [*where, *processes, *versions]))


def _command(words: Any) -> str:
    if not isinstance(words, list) or not words:
        return ""
    program = "vitcli" if Path(str(words[0])).name in ("__main__.py", "vitcli") else str(words[0])
    return shlex.join([program, *map(str, words[1:])])


def _recipe_title(run: RunRecord) -> str:
    if not run.recipe:
        return "recipe: not known"
    own = f"recipe {run.recipe_name or ''}".rstrip()
    return f"{own}: keys that differ from the {'shipped recipe' if run.shipped else 'defaults'}"


def _recipe_lines(differing: dict[str, tuple[Any, Any]], width: int | None) -> list[str]:
    if not differing:
        return ["none"]
    now = [yaml_value(value) for _, value in differing.values()]
    before = [yaml_value(value) for value, _ in differing.values()]
    return table_lines([Column("key", list(differing)), Column("this run", now), Column("before", before, 1)], width)


def _results(run: RunRecord, width: int | None) -> list[str]:
    """The numbers of the best and of the last evaluation."""
    if not run.val_lines:
        return ["not evaluated yet"]
    last = run.val_lines[-1]
    best = next((line for line in run.val_lines if line["step"] == run.best_step), last)
    numbers = [name for name in last if name not in ("kind", "step", "epoch", "time")]
    shown = [Column("", [f"{name} *" if name == run.metric else name for name in numbers])]
    for title, line in {"best": best, "last": last}.items():
        cells = [_number(line.get(name)) for name in numbers]
        shown.append(Column(f"{title}, epoch {line.get('epoch', '?')}", cells, right=True))
    return [*table_lines(shown, width), *(["* chooses the best checkpoint"] if run.metric in numbers else [])]


def _number(found: Any) -> str:
    return in_words.value(found) if isinstance(found, int | float) else str(found)


def _checkpoint_lines(run: RunRecord, saved: dict[Path, list[str]], width: int | None) -> list[str]:
    if not saved:
        return ["none"]
    steps = list(map(step_of, saved))
    marks = [" ".join(["best"] * (step == run.best_step) + ["newest"] * (step == steps[0])) for step in steps]
    columns = [
        Column("folder", [f"checkpoints/{folder.name}" for folder in saved]),
        Column("size", [in_words.size(RunRecord(folder).num_bytes) for folder in saved], right=True),
        Column("", marks),
        Column("files", ["damaged" if problems else "intact" for problems in saved.values()]),
    ]
    damaged = [f"{folder.name}: {problem}" for folder, problems in saved.items() for problem in problems]
    return [*table_lines(columns, width), *damaged]


def _next(run: RunRecord, saved: dict[Path, list[str]]) -> list[str]:
    """Commands, for what is there."""
    folder = shlex.quote(str(run.path))
    plugin = "" if run.recipe.get("model") in (None, *names("models")) else " --plugin FILE"
    commands = {}
    if run.status not in ("done", "running"):
        commands["continue"] = f"vitcli train --resume {folder}"
    if not all(saved.values()):  # one is intact
        if run.data.get("class_names"):
            commands["validate"] = f"vitcli validate {folder}"
            commands["export"] = f"vitcli export {folder} --to onnx -o exported"
        else:
            commands["features"] = f"vitcli embed {folder} DIR -o features.npz"
    if run.recipe:
        commands["repeat"] = f"vitcli train -c {folder}/recipe.yaml"
    return [f"{what:<9} {command}{plugin}" for what, command in commands.items()]
