"""`vitcli export`: a trained network as a file for another runtime, compared with its source before it is released."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vitcli.deploy.artifact import Artifact, NewArtifact
from vitcli.deploy.card import model_card
from vitcli.deploy.comparison_images import ComparisonImages
from vitcli.deploy.formats import open_format
from vitcli.deploy.gate import MAX_DROP, Verdict
from vitcli.deploy.job import ExportJob
from vitcli.deploy.plan import ExportPlan, check_plan
from vitcli.errors import UsageError
from vitcli.layers.reparam import reparameterize
from vitcli.log import SafeConsole, phase
from vitcli.networks.opened import open_model
from vitcli.recipe.load import Recipe
from vitcli.weights.convert import check_out, convert_weights

#: fewer labeled images than this say little about the accuracy
MANY = 334

_console = SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)


def export(source: str | Path, out: Path, plan: ExportPlan, *, recipe: Recipe | None = None) -> Artifact:
    """Write the network of `source` (as `--ckpt_path`) as an artifact into the new folder `out`.

    recipe: what the user says of the network and its images, such as `load_recipe(class_names=FILE)`.

    Raises:
        UsageError: the format, precision or device is not available; `out` exists; or the artifact is out of
            tolerance, and then nothing is written, unless `plan.accept`.
        DataError, WeightsError: as for `vitcli validate`.
    """
    check_plan(plan)
    form = open_format(plan.to, to="export")
    plan = replace(plan, batch=form.BATCH or plan.batch)
    with NewArtifact(out) as new:
        with phase("loading the network"):
            opened = open_model(source, recipe=recipe)
        with phase("listing images"):
            images = ComparisonImages(opened, plan)
        for note in dict.fromkeys([*opened.notes, *images.notes]):
            _console.note(note)
        with phase("reparameterizing"):
            job = ExportJob(opened, form, images, new, plan)
        verdict, quantization = job.write_and_compare(say=_console.say)
        _show(verdict)
        if verdict.problems and not plan.accept:
            help = "nothing was written; --accept writes it anyway and records the deviation in its card"
            raise UsageError(f"the artifact is out of tolerance: {'; '.join(verdict.problems)}", help=help)
        if images.bad:
            many = f"{len(images.bad)} images" if len(images.bad) > 1 else "one image"
            _console.note(f"{many} could not be read, and left out (on_bad_image: skip)")
        if images.calibration_split and images.calibration_split == images.val_split:
            _console.note("there is no training split: int8 was calibrated on images of the comparison")
        with phase("measuring latency"):
            facts = job.facts() | {"gate": _gate_facts(verdict), "speed": job.speed()}
        if quantization:
            facts["quantization"] = quantization
        artifact = new.finish(facts, model_card(facts, opened.class_names))
    speed = facts["speed"]
    here, eager = speed["artifact"]["p50_ms"], speed["eager"]["p50_ms"]
    by = " by the reference implementation" if speed["is_reference"] else ""
    _console.say(f"speed    {here:.2f} ms{by}, PyTorch {eager:.2f} ms (batch {speed['batch']}, {speed['machine']})")
    commands = [command.replace("THIS_FOLDER", str(out)) for command in facts["use"]]
    _console.say(f"wrote {out}")
    _console.next(*commands)
    return artifact


def export_fused(
    source: str | Path,
    out: Path,
    *,
    fold: Literal["standard", "full"] = "full",
    recipe: Recipe | None = None,
) -> None:
    """Write the reparameterized weights of `source`, with class names and preprocessing, into `out` (.safetensors).

    fold: "standard" is the form in which timm and Apple publish; see `reparameterize`.
    """
    check_out("vitcli", out)
    opened = open_model(source, recipe=recipe)
    fused = reparameterize(opened.model, fold=fold)
    tensors = {name: tensor.detach().contiguous() for name, tensor in fused.state_dict().items()}
    named = opened.recipe.dataset.class_names is not None
    meta = opened.weights.meta | ({"class_names": opened.class_names} if named else {})
    for note in [*opened.notes, *convert_weights(replace(opened.weights, tensors=tensors, meta=meta), "vitcli", out)]:
        _console.note(note)
    if opened.temperature != 1:
        _console.note(f"{out} holds weights only: its probabilities are not calibrated")
    before = sum(p.numel() for p in opened.model.parameters())
    after = sum(p.numel() for p in fused.parameters())
    _console.say(f"wrote {out}: {after:,} parameters, {before:,} before")
    _console.next(f"vitcli validate --ckpt_path {out} --data_dir DATA")


def _show(verdict: Verdict) -> None:
    for words, found in (("made-up images", verdict.made_up), ("real images", verdict.real)):
        if found is None:
            continue
        line = f"{found.num_images:,} {words}: logits differ by up to {found.max_difference:.2g}"
        line += f" ({found.error:.2g} of their spread), same {found.ANSWER} on {found.agreement_percent:.2f} %"
        if found.num_labeled:
            line += f"; {found.TITLE} {found.artifact_percent:.2f} %, source {found.source_percent:.2f} %"
        _console.say(f"compared {line}")
    if verdict.real is None:
        _console.note("compared on made-up images only; --data_dir DIR compares on real ones")
    elif verdict.real.num_labeled < MANY:
        _console.note(f"with so few images, one is more than {MAX_DROP} points; losing one is always allowed")


def _gate_facts(verdict: Verdict) -> dict[str, Any]:
    facts: dict[str, Any] = {"made_up": verdict.made_up.as_dict(), "problems": verdict.problems}
    if verdict.real:
        facts["real"] = verdict.real.as_dict()
        if interval := verdict.real.interval95():
            facts["interval95"] = [round(bound, 2) for bound in interval]
    return facts
