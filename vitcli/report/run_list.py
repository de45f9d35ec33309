"""Several runs as the rows of a table, in an order, and as plain values."""

import time
from collections.abc import Callable
from typing import Any

from vitcli.report import in_words
from vitcli.report.run_record import RunRecord
from vitcli.report.text_table import Column

#: key -> what is compared; a run that has no such value comes last
_ORDERS: dict[str, Callable[[RunRecord], Any]] = {
    "name": lambda run: str(run.path),
    "age": lambda run: -run.last_seen,
    "best": lambda run: None if run.best is None else -run.best,
    "size": lambda run: -run.num_bytes,
    "time": lambda run: None if run.seconds is None else -run.seconds,
}


def in_order(runs: list[RunRecord], order: str, *, reverse: bool = False) -> list[RunRecord]:
    """By name from A to Z, or by age (the newest first), best, size or time (the largest first)."""
    keys = {id(run): _ORDERS[order](run) for run in runs}
    known = sorted((run for run in runs if keys[id(run)] is not None), key=lambda run: keys[id(run)], reverse=reverse)
    return known + [run for run in runs if keys[id(run)] is None]


def run_columns(names: list[str], runs: list[RunRecord]) -> list[Column]:
    """One row for each run; with one metric in all of them, the titles name it."""
    now = time.time()
    metrics = {run.metric for run in runs if run.metric}
    of_all = f" {next(iter(metrics))}" if len(metrics) == 1 else ""
    columns = [
        Column("name", names),
        Column("recipe", [run.recipe_name or "" for run in runs], rank=9),
        Column("model", [str(run.recipe.get("model", "")) for run in runs], rank=4),
        Column("status", [run.status for run in runs]),
        Column("epochs", [epochs(run) for run in runs], rank=1, right=True),
        Column(f"best{of_all}", [in_words.value(run.best) for run in runs], right=True),
        Column("at epoch", ["" if run.best_epoch is None else str(run.best_epoch) for run in runs], 8, right=True),
        Column(f"last{of_all}", [in_words.value(run.last) for run in runs], rank=7, right=True),
        Column("time", [in_words.duration(run.seconds) for run in runs], rank=5, right=True),
        Column("size", [in_words.size(run.num_bytes) for run in runs], rank=6, right=True),
        Column("age", [in_words.duration(max(0.0, now - run.last_seen)) for run in runs], rank=3, right=True),
    ]
    return columns if of_all or not metrics else _with_metric(columns, runs)


def _with_metric(columns: list[Column], runs: list[RunRecord]) -> list[Column]:
    at = [column.title for column in columns].index("best")
    return [*columns[:at], Column("metric", [run.metric or "" for run in runs]), *columns[at:]]


def epochs(run: RunRecord) -> str:
    """`1.5/4`: done and asked for."""
    done = f"{run.epoch:.1f}".removesuffix(".0")
    return done if run.num_epochs is None else f"{done}/{run.num_epochs}"


def facts(run: RunRecord) -> dict[str, Any]:
    """What the table says, for a file."""
    return {
        "path": str(run.path),
        "name": run.name,
        "recipe": run.recipe_name,
        "model": run.recipe.get("model"),
        "status": run.status,
        "epoch": run.epoch,
        "num_epochs": run.num_epochs,
        "step": run.step,
        "metric": run.metric,
        "best": run.best,
        "best_step": run.best_step,
        "best_epoch": run.best_epoch,
        "last": run.last,
        "seconds": run.seconds,
        "num_sessions": run.num_sessions,
        "num_bytes": run.num_bytes,
        "last_seen": run.last_seen,
        "notes": run.notes,
    }
