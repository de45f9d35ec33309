"""`vitcli validate`: how well a network answers on its validation images, counted image by image; or which of two does.

A checkpoint, weights of any kind or an exported network; the raw weights too where a checkpoint has their average.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vitcli.commands.report import answered, run_of, write_report
from vitcli.data.crops import Crops
from vitcli.deploy.artifact import is_artifact
from vitcli.deploy.evaluation import Evaluation, prepared
from vitcli.deploy.subject import Fold, Temperature, check_artifact_options, open_subject
from vitcli.disk import check_writable
from vitcli.distributed import joined, num_launched
from vitcli.engine.preflight import check_launch
from vitcli.engine.run_dir import write_result
from vitcli.errors import UsageError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.calibration import fitted
from vitcli.log import Reporter
from vitcli.networks.calibration import check_storable, store_temperature
from vitcli.recipe.load import Recipe
from vitcli.report.answers_file import check_answers_file, write_answers, write_two_answers
from vitcli.report.answers_summary import answers_facts, answers_rows
from vitcli.report.comparison import check_comparable, compared
from vitcli.report.evaluated_network import EvaluatedNetwork


@dataclass(frozen=True)
class _Found:
    """What an evaluation has found."""

    numbers: dict[str, float]
    facts: dict[str, Any]  #: of the JSON file
    networks: list[EvaluatedNetwork]  #: those of the report


def validate(
    recipe: Recipe,
    *,
    compare_with: str | Path | None = None,
    fold: Fold = "none",
    crops: Crops | None = None,
    json_file: Path | None = None,
    predictions: Path | None = None,
    report: Path | None = None,
    temperature: Temperature | Literal["fit"] = "stored",
) -> dict[str, float]:
    """Evaluate `recipe.model.ckpt_path`, weights of any kind or an exported folder, on the validation split.

    Args:
        recipe: what the user says; `networks/precedence.py` decides between it and what the weights say.
        compare_with: another network, which is evaluated on the same images.
        fold: evaluate the network in the form its weights have, or reparameterized ("standard", "full").
        crops: classify each image by the average of many crops; the result by the single crop is reported too.
        json_file: also write the result to this path.
        predictions: also write the answer to each image to this path, see `report/answers_file.py`.
        report: also write the page of `vitcli report` to this path.
        temperature: use the one that is stored with the weights, none, or fit one and store it.

    Returns:
        The numbers by name: for classification top1 and top5 in percent, nll, num_images, correct1, correct5; for
        multilabel mAP, f1_micro, f1_macro in percent, num_images, and those of each class. Of two networks:
        `Comparison.as_dict`.

    Raises:
        VitcliError: see `errors.py`.
    """
    recipes = [recipe] if compare_with is None else [recipe, recipe.changed(ckpt_path=str(compare_with))]
    check_writable(json_file)
    check_writable(predictions)
    check_writable(report)
    check_answers_file(predictions)
    exported = _check(recipes, fold=fold, crops=crops, temperature=temperature)
    launch_notes = check_launch(recipe)
    with joined("cpu" if exported else recipe.system.device, num_launched() > 1) as world:
        reporter = Reporter(enabled=world.is_main)
        reporter.notes(recipe.notes, launch_notes)
        kept: Temperature = "none" if temperature == "fit" else temperature
        evaluations = [prepared(open_subject(one, fold, world.device, kept), crops, world) for one in recipes]
        for evaluation in evaluations:
            reporter.notes(evaluation.subject.notes, evaluation.notes)
        if compare_with is not None:
            found = _compare(evaluations[0], evaluations[1], reporter, predictions)
        elif temperature == "fit":
            found = _fit(evaluations[0], reporter, predictions)
        else:
            raw = None
            if evaluations[0].subject.is_average and recipe.model.use_ema is None:
                raw = evaluations[0].of(open_subject(recipe.changed(use_ema=False), fold, world.device, kept))
            found = _measure(evaluations[0], raw, reporter, predictions)
        if json_file and world.is_main:
            write_result(json_file, found.facts)
    if report and world.is_main:  # alone: pictures need no other rank
        with joined(world.device.type, distributed=False) as alone:
            write_report(report, [run_of(one) for one in recipes], found.networks, alone, reporter)
    return found.numbers


def _check(recipes: list[Recipe], *, fold: Fold, crops: Crops | None, temperature: str) -> bool:
    """Refuse what cannot be done, before anything is opened; whether all networks are exported ones."""
    if recipes[0].model.ckpt_path is None:
        raise UsageError("nothing to validate", help="give --ckpt_path: a run, a checkpoint, weights, or an export")
    if temperature == "fit" and len(recipes) > 1:
        raise UsageError("--temperature fit is for one network", help="fit it for each, then compare them")
    if temperature == "fit" and crops:
        raise UsageError("a temperature is fitted for one crop of each image", help="remove --eval_crops")
    options = {"fold": fold != "none", "eval_crops": crops is not None, "temperature": temperature != "stored"}
    exported = [recipe for recipe in recipes if is_artifact(recipe.model.ckpt_path or "")]
    for recipe in exported:
        check_artifact_options(recipe, options)
    return len(exported) == len(recipes)


def _measure(evaluation: Evaluation, raw: Evaluation | None, reporter: Reporter, predictions: Path | None) -> _Found:
    """One network: its numbers, what it gets wrong, and the raw weights' numbers where it is an average."""
    if predictions:
        evaluation.check_answers("--predictions")
    subject, found = evaluation.subject, evaluation.run()
    answers, facts = found.answers, found.facts | subject.facts
    rows = subject.rows + found.rows
    if answers:
        facts |= answers_facts(answers)
        rows += answers_rows(answers) if isinstance(answers, ImageAnswers) else []
    if raw:
        of_raw = raw.run()
        facts["raw_weights"] = of_raw.numbers
        rows.append(("raw weights", f"{of_raw.brief}  (the rows above are those of the average)"))
    reporter.table("validation", rows)
    if answers and predictions and evaluation.world.is_main:
        write_answers(predictions, answers)
    return _Found(found.numbers, facts, [answered(evaluation, found)])


def _compare(first: Evaluation, second: Evaluation, reporter: Reporter, predictions: Path | None) -> _Found:
    """Two networks on the same images."""
    for evaluation in (first, second):
        evaluation.check_answers("a comparison")
    assert first.val is not None
    assert second.val is not None
    check_comparable(first.val, second.val)
    found = [one.run() for one in (first, second)]
    for evaluation, one, which in zip((first, second), found, ("first", "second"), strict=True):
        reporter.table(which, evaluation.subject.rows + one.rows)
    answers = [one.answers for one in found if isinstance(one.answers, ImageAnswers)]
    comparison = compared(*answers)
    assert comparison is not None
    reporter.table("comparison", comparison.rows(written=predictions is not None))
    if predictions and first.world.is_main:
        write_two_answers(predictions, comparison.first, comparison.second)
    numbers = comparison.as_dict()
    facts = {
        which: one.facts | evaluation.subject.facts | (answers_facts(one.answers) if one.answers else {})
        for which, evaluation, one in zip(("first", "second"), (first, second), found, strict=True)
    }
    networks = [answered(first, found[0]), answered(second, found[1])]
    return _Found(numbers, facts | {"comparison": numbers}, networks)


def _fit(evaluation: Evaluation, reporter: Reporter, predictions: Path | None) -> _Found:
    """Fit a temperature on one half of the images, measure it on the other, and store it if it helps there."""
    subject = evaluation.subject
    assert subject.opened is not None
    check_storable(subject.opened.weights)
    evaluation.check_answers("--temperature fit")
    if evaluation.multi_label:
        help = "remove it: for any number of classes there is a threshold of each class"
        raise UsageError("--temperature fit is for networks that give each image one class", help=help)
    found = evaluation.run()
    answers = found.answers
    assert isinstance(answers, ImageAnswers)
    result = fitted(answers)
    rows = subject.rows + found.rows + result.rows()
    if result.helps:
        if evaluation.world.is_main:
            file = store_temperature(
                subject.opened.weights, result.temperature, _fitted_on(evaluation, result.as_dict())
            )
            rows.append(("stored in", f"{file}; validate, predict and export use it"))
        answers = answers.with_temperature(result.temperature)
    else:
        rows.append(("warning", "the temperature does not help on the other images: it was not stored"))
    reporter.table("validation, before the temperature", rows)
    if predictions and evaluation.world.is_main:
        write_answers(predictions, answers)
    facts = found.facts | subject.facts | answers_facts(answers)
    facts["fitted_temperature"] = result.as_dict() | {"stored": result.helps}
    network = replace(
        answered(evaluation, found), answers=answers, temperature=result.temperature if result.helps else 1.0
    )
    return _Found(found.numbers, facts, [network])


def _fitted_on(evaluation: Evaluation, facts: dict[str, Any]) -> dict[str, Any]:
    section = evaluation.subject.recipe.dataset
    where = {"dataset": section.dataset, "data_dir": section.data_dir and str(section.data_dir)}
    return where | {name: value for name, value in facts.items() if name != "temperature"}
