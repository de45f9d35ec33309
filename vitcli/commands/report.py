"""`vitcli report`: what a run is worth, or how several compare, on one page that needs nothing else."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from vitcli.deploy.predictions import check_writable
from vitcli.disk import write_whole
from vitcli.distributed import World, joined
from vitcli.errors import DataError, DiskError, UsageError, VitcliError
from vitcli.log import Reporter, relative
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.report.evaluation import Evaluation, evaluated
from vitcli.report.one_run import report_of_one
from vitcli.report.run_record import RunRecord
from vitcli.report.several_runs import report_of_several

#: in the folder of a run
REPORT = Path("report") / "report.html"


def report(runs: Sequence[Path], out: Path, *, recipe: Recipe, num_images: int | None = None) -> None:
    """Evaluate the best checkpoint of each run on its validation images, and write the page.

    Args:
        out: the HTML file.
        recipe: what the user says: the device, or where the data is now.
        num_images: of the validation split that are evaluated, evenly spread; None: all.

    Raises:
        VitcliError: there is no such run, or the file cannot be written. A run whose data or checkpoints are gone gets
            a report of what its folder tells.
    """
    check_writable(out)
    records = [RunRecord(run) for run in _distinct(runs)]
    for record in records:
        _check_run(record.path)
    with joined(recipe.system.device, distributed=False) as world:
        reporter = Reporter(enabled=True)
        evaluations = [_evaluated(record, recipe, world, reporter, num_images) for record in records]
        if len(records) == 1:
            text = report_of_one(records[0], evaluations[0], world)
        else:
            evaluations = [one and replace(one, network=None) for one in evaluations]
            text = report_of_several(records, evaluations)
    write_page(out, text)
    reporter.say(f"wrote {relative(out)}: {_in_words(records)}, {len(text.encode()) / 1e6:.1f} MB")


def report_at_the_end(run: Path, recipe: Recipe) -> None:
    """RUN/report/report.html of a run that is complete; whatever goes wrong is a note and changes nothing else."""
    same = {name: recipe.get(name) for name in ("device", "num_parallel_workers", "max_image_pixels")}
    out = run / REPORT
    try:
        if dist.is_initialized():  # of a caller, in whose collective operations the other ranks would take no part
            raise UsageError("the process group of the training still exists")
        out.parent.mkdir(exist_ok=True)
        report([run], out, recipe=load_recipe(None, **same))
    except (Exception, KeyboardInterrupt) as error:
        what = error.message if isinstance(error, VitcliError) else f"{type(error).__name__}: {error}"
        words = f"the run is complete, but no report was written: {what}; later: vitcli report {relative(run)}"
        Reporter(enabled=True).note(words)


def write_page(out: Path, text: str) -> None:
    """Whole or not at all; UsageError if it cannot be written."""
    try:
        write_whole(out, text)
    except DiskError as error:
        raise UsageError(error.message, help=error.help) from None


def _evaluated(
    record: RunRecord, recipe: Recipe, world: World, reporter: Reporter, num_images: int | None
) -> Evaluation | None:
    """None: the run has nothing that can be opened; a note says why."""
    then = record.data.get("val")
    try:
        return evaluated(
            record.path, recipe, world, reporter, num_images=num_images, then=then if isinstance(then, dict) else None
        )
    except VitcliError as error:
        reporter.note(f"{record.path} is shown as its files tell: {error.message}")
        return None


def _distinct(runs: Sequence[Path]) -> list[Path]:
    return list({run.resolve(): run for run in runs}.values())


def _check_run(path: Path) -> None:
    if (path / "recipe.yaml").is_file() or (path / "checkpoints").is_dir():
        return
    what = "is no run: it has no recipe.yaml" if path.is_dir() else "does not exist"
    help = "give the folder of a run; for a file of weights: vitcli validate FILE --data_dir DIR --report report.html"
    raise DataError(f"{os.fspath(path)} {what}", help=help)


def _in_words(records: Sequence[RunRecord]) -> str:
    return f"{len(records)} runs" if len(records) > 1 else f"the run {records[0].name}"
