"""Put weights into a model: all of them or none, and say what became of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vitcli.errors import WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model, list_models
from vitcli.weights.read import Weights, read_weights


@dataclass
class LoadReport:
    """Names of tensors, as the model calls them."""

    matched: list[str] = field(default_factory=list)  # copied as they are
    resized: list[str] = field(default_factory=list)  # copied after a change of shape
    missing: list[str] = field(default_factory=list)  # of the model, left at their first values
    unexpected: list[str] = field(default_factory=list)  # of the file, not used
    notes: list[str] = field(default_factory=list)  # reasons for the last three, in words

    def lines(self) -> list[str]:
        """The report for people."""
        counts = [f"{len(self.matched)} tensors loaded"]
        for word in ("resized", "missing", "unexpected"):
            names = getattr(self, word)
            if names:
                counts.append(f"{len(names)} {word} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
        return ["; ".join(counts), *self.notes]


def load_weights(
    model: nn.Module, weights: str | Path | Weights, *, reset_head: bool = False, use_ema: bool = False
) -> LoadReport:
    """Copy `weights` into `model` and return what was done.

    Names of another project are converted by the model's own `convert_keys`. Three differences are bridged, each of
    them said in the notes: another number of classes (the head keeps its fresh values), a head the model has not,
    and 1 instead of 3 image channels or the reverse.

    Args:
        model: any of the registry's, in training form or fused; the file must have the same form.
        weights: a path for `read_weights`, or what it returned.
        reset_head: do not load the head even if it fits.
        use_ema: passed on to `read_weights`.

    Raises:
        WeightsError: the weights are for another model or form. The model is then unchanged.
    """
    if not isinstance(weights, Weights):
        weights = read_weights(weights, use_ema=use_ema)
    own = model.state_dict()
    tensors = _converted(model, weights.tensors)
    _check_form(tensors, own, weights.source)

    report = LoadReport()
    _settle_head(tensors, own, getattr(model, "classifier", "head"), report, reset_head=reset_head)
    _settle_image_channels(tensors, own, getattr(model, "first_convs", ()), report)
    _check_all(tensors, own, report, weights)

    report.matched = [name for name in own if name in tensors and name not in report.resized]
    model.load_state_dict({**own, **tensors})
    return report


def is_fused(names: Iterable[str]) -> bool:
    """Whether tensors with these names are of a reparameterized model (timm's or Apple's names)."""
    return any("reparam_conv." in name or "lkb_reparam." in name for name in names)


def _converted(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    convert = getattr(model, "convert_keys", dict)
    return convert(tensors)


def _check_form(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    if is_fused(tensors) and not is_fused(own):
        raise WeightsError(
            f"{source} is fused (reparameterized), the model is in training form",
            help="load it into reparameterize(model); a fused file cannot be trained further",
        )
    if is_fused(own) and not is_fused(tensors):
        raise WeightsError(
            f"{source} is in training form, the model is fused (reparameterized)",
            help="load it into the model in training form, then reparameterize that",
        )


def _settle_head(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], head: str, report: LoadReport, *, reset_head: bool
) -> None:
    """Take the head out of `tensors` if it is not wanted or of another size."""
    in_file = [name for name in tensors if name.startswith(f"{head}.")]
    in_model = [name for name in own if name.startswith(f"{head}.")]
    file_classes, model_classes = _num_classes(tensors, head), _num_classes(own, head)
    if file_classes and not model_classes:
        report.notes.append(f"head not loaded: the file has {file_classes} classes, the model has no head")
    elif reset_head:
        report.notes.append("head not loaded: a fresh one was asked for")
    elif file_classes and file_classes != model_classes:
        report.notes.append(f"head not loaded: the file has {file_classes} classes, the model {model_classes}")
    elif model_classes and not file_classes:
        report.notes.append("head not loaded: the file has none")
    else:
        return
    report.unexpected += in_file
    report.missing += in_model
    for name in in_file:
        del tensors[name]


def _num_classes(tensors: Mapping[str, Tensor], head: str) -> int:
    return len(tensors[f"{head}.weight"]) if f"{head}.weight" in tensors else 0


def _settle_image_channels(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], convs: Iterable[str], report: LoadReport
) -> None:
    """Colour to gray by the sum of the kernels, gray to colour by a third for each: a gray image gives the same."""
    for name in (f"{conv}.weight" for conv in convs):
        if name not in tensors or name not in own:
            continue
        kernel, channels = tensors[name], own[name].shape[1]
        if (kernel.shape[1], channels) == (3, 1):
            tensors[name] = kernel.sum(1, keepdim=True)
        elif (kernel.shape[1], channels) == (1, 3):
            tensors[name] = kernel.repeat(1, 3, 1, 1) / 3
        else:
            continue
        report.resized.append(name)
        report.notes.append(f"{name}: {kernel.shape[1]} image channels in the file, {channels} in the model")


def _check_all(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport, weights: Weights) -> None:
    """WeightsError unless what is left fits exactly."""
    missing = [name for name in own if name not in tensors and name not in report.missing]
    unexpected = [name for name in tensors if name not in own]
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(wrong.values()):
        lines = [f"{len(names)} {word}: {', '.join(names[:3])}" for word, names in wrong.items() if names]
        fitting = _model_that_fits(weights.tensors)
        raise WeightsError(
            f"{weights.source} is not for this model\n  " + "\n  ".join(lines),
            help=f"this file fits {fitting}" if fitting else "it fits no model of the registry",
        )


def _model_that_fits(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the registry's model whose tensors, head and image channels aside, have these names and shapes."""
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
            if is_fused(tensors):
                model = reparameterize(model)
        aside = (getattr(model, "classifier", "head"), *getattr(model, "first_convs", ()))
        if _shapes(model.state_dict(), aside) == _shapes(_converted(model, tensors), aside):
            return name
    return None


def _shapes(tensors: Mapping[str, Tensor], aside: tuple[str, ...]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(aside)}
