"""`vitcli report`: what a run is worth, or how several compare, on one page that needs nothing else."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from PIL.Image import Image

from vitcli.deploy.evaluation import Evaluation, Measured, prepared
from vitcli.deploy.subject import Subject, open_subject
from vitcli.disk import check_writable, write_whole
from vitcli.distributed import World, joined
from vitcli.errors import DataError, DiskError, UsageError, VitcliError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.log import Reporter, relative
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.report.evaluated_network import EvaluatedNetwork, change_since
from vitcli.report.in_words import size
from vitcli.report.mistakes import worst_page
from vitcli.report.one_run import report_of_one
from vitcli.report.run_folders import is_run
from vitcli.report.run_record import RunRecord
from vitcli.report.several_runs import report_of_several

#: in the folder of a run
REPORT = Path("report") / "report.html"


def report(
    runs: Sequence[Path], out: Path, *, recipe: Recipe, num_images: int | None = None
) -> list[EvaluatedNetwork | None]:
    """Evaluate the best checkpoint of each run on its validation images, write the page, and return what was found.

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
        networks = []
        for record in records:
            found = _evaluated(record, recipe, world, reporter, num_images)
            networks.append(replace(found, network=None) if found and len(records) > 1 else found)
        write_report(out, records, networks, world, reporter)
    return networks


def write_report(
    out: Path,
    records: Sequence[RunRecord | None],
    networks: Sequence[EvaluatedNetwork | None],
    world: World,
    reporter: Reporter,
) -> None:
    """The page of one, or the comparison of several, each a run, its network, or both; `world` is this process alone.

    Raises:
        UsageError: the file cannot be written.
    """
    kind = "runs" if all(records) else "networks"
    if len(networks) == 1:
        text = report_of_one(records[0], networks[0], world)
        said = f"the run {records[0].name}" if records[0] else networks[0].source if networks[0] else ""
    else:
        text, said = report_of_several(records, networks, kind), f"{len(networks)} {kind}"
    write_page(out, text)
    reporter.say(f"wrote {relative(out)}: {said}, {size(len(text.encode()))}")


def run_of(recipe: Recipe) -> RunRecord | None:
    """That whose folder the recipe names as its weights; None: it names something else."""
    path = Path(recipe.model.ckpt_path or "")
    return RunRecord(path) if is_run(path) else None


def answered(evaluation: Evaluation, measured: Measured) -> EvaluatedNetwork:
    """What a report shows of a network that was evaluated; of a run, whether its validation images are others now."""
    notes, record = [*evaluation.notes], run_of(evaluation.subject.recipe)
    then = record.data.get("val") if record else None
    if evaluation.val and (changed := change_since(evaluation.val, then if isinstance(then, dict) else None)):
        notes.append(changed)
    if evaluation.crops:
        notes.append(f"each image is classified by the average of {evaluation.crops.num_crops} crops")
    found = _unanswered(evaluation.subject, notes)
    return replace(found, images=evaluation.val, answers=measured.answers, numbers=measured.numbers)


def report_at_the_end(run: Path, recipe: Recipe) -> Image | None:
    """RUN/report/report.html of a run that is complete; whatever goes wrong is a note and changes nothing else.

    Returns a page with the worst images, if it knows any.
    """
    same = {name: recipe.get(name) for name in ("device", "num_parallel_workers", "max_image_pixels")}
    out = run / REPORT
    try:
        if dist.is_initialized():  # of a caller, in whose collective operations the other ranks would take no part
            raise UsageError("the process group of the training still exists")
        out.parent.mkdir(exist_ok=True)
        (network,) = report([run], out, recipe=load_recipe(None, **same))
        if network is None or not isinstance(network.answers, ImageAnswers):
            return None
        return worst_page(network.answers, network.look)
    except (Exception, KeyboardInterrupt) as error:
        what = error.message if isinstance(error, VitcliError) else f"{type(error).__name__}: {error}"
        words = f"the run is complete, but no report was written: {what}; later: vitcli report {relative(run)}"
        Reporter(enabled=True).note(words)
        return None


def write_page(out: Path, text: str) -> None:
    """Whole or not at all; UsageError if it cannot be written."""
    try:
        write_whole(out, text)
    except DiskError as error:
        raise UsageError(error.message, help=error.help) from None


def _evaluated(
    record: RunRecord, recipe: Recipe, world: World, reporter: Reporter, num_images: int | None
) -> EvaluatedNetwork | None:
    """The best checkpoint of a run, evaluated on the validation images of its recipe; without answers if they are gone.

    None: the run has nothing that can be opened; a note says why.
    """
    try:
        subject = open_subject(recipe.changed(ckpt_path=str(record.path)), "none", world.device)
    except VitcliError as error:
        reporter.note(f"{record.path} is shown as its files tell: {error.message}")
        return None
    if not subject.class_names:
        return _unanswered(subject)
    try:
        evaluation = prepared(subject, None, world)
        part = _part(evaluation, num_images)
        assert part.val is not None
        reporter.say(f"evaluating {len(part.val):,} images with {subject.source}")
        found = answered(evaluation, part.run())
    except VitcliError as error:
        said = f"the validation images were not evaluated: {error.message.splitlines()[0]}"
        reporter.note(said)
        return _unanswered(subject, [said])
    if part is evaluation:
        return found
    said = f"{len(part.val):,} of the {len(evaluation.val or ()):,} validation images were evaluated, evenly spread"
    return replace(found, images=part.val, notes=[*found.notes, said])


def _part(evaluation: Evaluation, num_images: int | None) -> Evaluation:
    """The same evaluation, of at most `num_images` images that are evenly spread over the split; None: of all."""
    val = evaluation.val
    if val is None or num_images is None or num_images >= len(val):
        return evaluation
    return replace(evaluation, val=val.subset(num_images))


def _unanswered(subject: Subject, notes: Sequence[str] = ()) -> EvaluatedNetwork:
    return EvaluatedNetwork(
        subject.recipe,
        subject.network,
        subject.source,
        subject.class_names,
        temperature=subject.temperature,
        notes=[*subject.notes, *notes],
    )


def _distinct(runs: Sequence[Path]) -> list[Path]:
    return list({run.resolve(): run for run in runs}.values())


def _check_run(path: Path) -> None:
    if (path / "recipe.yaml").is_file() or (path / "checkpoints").is_dir():
        return
    what = "is no run: it has no recipe.yaml" if path.is_dir() else "does not exist"
    help = "give the folder of a run; for a file of weights: vitcli validate FILE --data_dir DIR --report report.html"
    raise DataError(f"{os.fspath(path)} {what}", help=help)
