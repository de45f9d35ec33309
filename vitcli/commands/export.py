"""`vitcli export`: a trained network as a file for another runtime, compared with its source first."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from vitcli.commands.export_images import ExportImages
from vitcli.commands.export_job import ExportJob
from vitcli.deploy.artifact import Artifact, NewArtifact
from vitcli.deploy.card import model_card
from vitcli.deploy.formats import Format, need, open_format
from vitcli.deploy.gate import MAX_DROP, Verdict
from vitcli.errors import UsageError
from vitcli.evaluators.top1 import EvalResult
from vitcli.layers.reparam import reparameterize
from vitcli.networks.opened import open_model
from vitcli.weights.convert import check_out, convert_weights

#: so few labeled images say little about the accuracy
MANY = 334

_console = Console(highlight=False, emoji=False, soft_wrap=True)


@dataclass(frozen=True)
class ExportPlan:
    """What the user asked for.

    precision: one of the format's. input: "pixels" (uint8 in, probabilities out) or "normalized" (float32, logits).
    batch: the only batch size; None: any. num_images: of the validation split, for the comparison; 0: all.
    num_calibration: images for int8's ranges. accept: write what is out of tolerance, with the deviation in the card.
    """

    to: str
    precision: str = "fp32"
    input: Literal["pixels", "normalized"] = "pixels"
    batch: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    data_dir: Path | None = None
    val_split: str | None = None
    num_images: int = 2000
    num_calibration: int = 300
    accept: bool = False


def export(source: str | Path, out: Path, plan: ExportPlan, *, use_ema: bool | None = None) -> Artifact:
    """Write the network of `source` (as `--ckpt_path`) as an artifact into the new folder `out`.

    Raises:
        UsageError: the format, precision or device cannot be had; `out` exists; or the artifact is out of tolerance,
            and then nothing is written, unless `plan.accept`.
        DataError, WeightsError: as for `vitcli validate`.
    """
    form = open_format(plan.to, to="export")
    plan = _checked(plan, form)
    with NewArtifact(out) as new:
        opened = open_model(source, use_ema=use_ema)
        for note in opened.notes:
            _console.print(f"note: {note}")
        images = ExportImages(
            opened.recipe,
            opened.class_names,
            plan.data_dir,
            trained_here="recipe" in opened.weights.meta,
            val_split=plan.val_split,
            num_images=plan.num_images,
            num_calibration=plan.num_calibration if plan.precision == "int8" else 0,
        )
        for note in dict.fromkeys(images.notes):
            _console.print(f"note: {note}")
        job = ExportJob(
            opened,
            form,
            images,
            new,
            to=plan.to,
            precision=plan.precision,
            takes_pixels=plan.input == "pixels",
            batch=plan.batch,
            device=plan.device,
        )
        verdict, quantization = job.write_and_compare(say=_console.print)
        _console.print(_summary(verdict))
        if verdict.problems and not plan.accept:
            raise _refusal(verdict)
        if images.calibration_split and images.calibration_split == images.val_split:
            _console.print("note: there is no training split, so int8 was calibrated on images that are counted here")
        facts = job.facts() | {"gate": _gate_facts(verdict), "speed": job.speed()}
        if quantization:
            facts["quantization"] = quantization
        artifact = new.finish(facts, model_card(facts, opened.class_names))
    speed = facts["speed"]
    here, eager = speed["artifact"]["p50_ms"], speed["eager"]["p50_ms"]
    _console.print(f"speed    {here:.2f} ms, PyTorch {eager:.2f} ms (batch {speed['batch']}, {speed['machine']})")
    _console.print(f"wrote {out}\nnext: vitcli predict {out} IMAGES\n      vitcli validate {out} --data_dir DATA")
    return artifact


def export_fused(
    source: str | Path, out: Path, *, fold: Literal["standard", "full"] = "full", use_ema: bool | None = None
) -> None:
    """Write the reparameterized weights of `source` into the new file `out` (.safetensors), what travels with them too.

    fold "standard" is the form in which timm and Apple publish; see `reparameterize`.
    """
    check_out("vitcli", out)
    opened = open_model(source, use_ema=use_ema)
    fused = reparameterize(opened.model, fold=fold)
    tensors = {name: tensor.detach().contiguous() for name, tensor in fused.state_dict().items()}
    for note in [*opened.notes, *convert_weights(replace(opened.weights, tensors=tensors), "vitcli", out)]:
        _console.print(f"note: {note}")
    before = sum(p.numel() for p in opened.model.parameters())
    after = sum(p.numel() for p in fused.parameters())
    _console.print(f"wrote {out}: {after:,} parameters, {before:,} before")
    _console.print(f"next: vitcli validate --ckpt_path {out} --data_dir DATA")


def _checked(plan: ExportPlan, form: Format) -> ExportPlan:
    """The plan with what the format fixes; UsageError for what it cannot do."""
    if plan.precision not in form.PRECISIONS:
        others = ", ".join(form.PRECISIONS)
        raise UsageError(f"the format {plan.to} has no {plan.precision}", help=f"--precision is one of {others}")
    if plan.precision == "int8" and plan.data_dir is None:
        raise UsageError(
            "int8 needs images: the ranges of all layers are measured on them",
            help="give --data_dir with train/CLASS/... and val/CLASS/..., or a --precision that needs none",
        )
    if plan.precision.startswith("int8"):
        need(form.TO_QUANTIZE, extra="quantize", why=plan.precision)
    if plan.device == "cuda" and plan.precision == "int8":
        raise UsageError("static int8 is for CPUs", help="on a GPU take bf16 or fp16")
    if plan.device not in form.DEVICES:
        raise UsageError(f"{plan.to} is exported on the CPU, wherever it runs", help="leave --device out")
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no GPU here", help="export on the kind of machine it is to run on")
    if form.BATCH and plan.batch not in (None, form.BATCH):
        raise UsageError(f"the format {plan.to} takes {form.BATCH} image at a time", help="leave --batch out")
    return replace(plan, batch=form.BATCH or plan.batch)


def _refusal(verdict: Verdict) -> UsageError:
    return UsageError(
        f"the artifact is out of tolerance: {'; '.join(verdict.problems)}",
        help="nothing was written; --accept writes it all the same, with the deviation in its card",
    )


def _summary(verdict: Verdict) -> str:
    lines = []
    for words, found in (("made-up images", verdict.made_up), ("real images", verdict.real)):
        if found is None:
            continue
        facts = found.as_dict()
        line = f"{found.num_images:,} {words}: logits differ by up to {found.max_difference:.2g}"
        line += f" ({found.error:.2g} of their spread), same top-1 on {facts['top1_agreement']:.2f} %"
        if found.num_labeled:
            line += f"; top-1 {facts['top1_artifact']:.2f} %, source {facts['top1_source']:.2f} %"
        lines.append(f"compared {line}")
    if verdict.real is None:
        lines.append("note: no --data_dir, so it was compared on made-up images only")
    elif verdict.real.num_labeled < MANY:
        lines.append(f"note: of so few images one counts for more than {MAX_DROP} points; one may always be lost")
    return "\n".join(lines)


def _gate_facts(verdict: Verdict) -> dict[str, Any]:
    facts: dict[str, Any] = {"made_up": verdict.made_up.as_dict(), "problems": verdict.problems}
    if verdict.real:
        facts["real"] = verdict.real.as_dict()
        counted = EvalResult(verdict.real.num_labeled, verdict.real.correct_artifact, 0, 0.0)
        facts["interval95"] = [round(bound, 2) for bound in counted.interval95()]
    return facts
