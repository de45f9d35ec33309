"""Loads weights into a model, all of them or none, and reports what happened to each tensor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitcli.errors import WeightsError
from vitcli.models.vit_options import options_of
from vitcli.weights.adapt import Classes, LoadReport, PosResample, adapt
from vitcli.weights.fit import converted, find_fit, fold_of, known_options, why_not
from vitcli.weights.read import Weights, read_weights
from vitcli.weights.torch_file import EMA_WRAPPERS


def load_weights(
    model: nn.Module,
    weights: str | Path | Weights,
    *,
    class_names: Sequence[str] | None = None,
    reset_head: bool = False,
    use_ema: bool | None = None,
    pos_resample: PosResample = "timm",
) -> LoadReport:
    """Copy `weights` into `model` and return a report.

    Names of other projects are converted by the model's own `convert_keys`. Some differences are resolved, each with a
    note: other classes (see `class_names`; pre_logits before a new head are new too), a head or `fine_tune` layer that
    only one side has, 1 instead of 3 image channels or the reverse, and for ViTs another image or patch size, another
    pooling, and DeiT's distillation token, which a plain model does not have.

    Args:
        model: a model of the registry, in training form or fused; the file must have the same form, by the same fold.
        weights: a source for `read_weights`, or its result.
        class_names: of the outputs of `model`, if it is to learn these classes. Where the weights name theirs too, the
            head takes the rows of the classes that both have, and its other rows keep their initial values; an equal
            number proves nothing. Where one side has no names, a head of the right size is taken in the order it has.
        reset_head: do not load the head (with `fine_tune`: that layer) even if it fits.
        use_ema: passed to `read_weights`.
        pos_resample: whose rule resizes position embeddings; see `adapt.INTERPOLATIONS`.

    Raises:
        WeightsError: the weights are for another model or form, or are known to need another number of heads, scale of
            the attention or kind of positions. The model is then unchanged.
    """
    if not isinstance(weights, Weights):
        weights = read_weights(weights, use_ema=use_ema)
    own = model.state_dict()
    size = known_options(weights).get("img_size")
    tensors, prefix = weights.tensors, weights.prefix
    if prefix and all(name.startswith(prefix) for name in own):  # the model's own names begin with it
        tensors, prefix = {prefix + name: tensor for name, tensor in tensors.items()}, ""
    tensors = converted(model, tensors, size)
    _check_form(tensors, own, weights.source)

    report = LoadReport(notes=_chosen_note(weights))
    if prefix:
        report.notes.append(f"all names in the file begin with {prefix!r}, which was removed")
    if learner := weights.meta.get("learner"):
        report.notes.append(f"only {learner}* loaded, without its head, which did not train there")
    classes = Classes(weights.class_names, class_names)
    reset_head = reset_head or learner is not None
    adapt(tensors, model, report, classes=classes, reset_head=reset_head, pos_resample=pos_resample, img_size=size)
    _check_all(tensors, own, report, weights)
    _check_hidden(model, report, weights)

    changed = {*report.resized, *report.partial}
    report.matched = [name for name in own if name in tensors and name not in changed]
    model.load_state_dict({**own, **tensors})
    return report


def _chosen_note(weights: Weights) -> list[str]:
    """A note on which weights were read, if the file has a moving average and raw ones."""
    if weights.chosen is None:
        return []
    used = "average is" if weights.chosen in EMA_WRAPPERS else "raw weights are"
    return [f"the file has raw weights and their moving average: the {used} used ({weights.chosen})"]


def _check_form(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    theirs, ours = fold_of(tensors), fold_of(own)
    if theirs and not ours:
        raise WeightsError(
            f"{source} is fused (reparameterized), the model is in training form",
            help=f"to train it further, run `vitcli weights unfuse {source} -o FILE` and train that file; "
            f"to use it as it is, load it into reparameterize(model, fold={theirs!r})",
        )
    if ours and not theirs:
        help = "load it into the model in training form, then reparameterize the model"
        raise WeightsError(f"{source} is in training form, the model is fused (reparameterized)", help=help)
    if ours != theirs:
        help = f"load it into reparameterize(model, fold={theirs!r})"
        raise WeightsError(f"{source} is reparameterized with fold {theirs!r}, the model with {ours!r}", help=help)


def _check_all(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport, weights: Weights) -> None:
    """WeightsError unless the remaining tensors fit exactly."""
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
        fit = find_fit(weights)
        help = f"this file fits {fit}" if fit else f"it fits no model of the registry{why_not(weights.tensors)}"
        raise WeightsError(f"{weights.source} is not for this model\n  " + "\n  ".join(lines), help=help)


def _check_hidden(model: nn.Module, report: LoadReport, weights: Weights) -> None:
    """Options that no tensor shows: WeightsError if the model has another value than is known; the eps may differ."""
    own: dict[str, Any] = getattr(model, "hidden_options", {})
    known = known_options(weights) if own else {}
    wrong = {name: known[name] for name in own if name != "norm_eps" and known.get(name, own[name]) != own[name]}
    if wrong:
        lines = [f"{name}: {value} in the weights, {own[name]} in the model" for name, value in wrong.items()]
        wanted = ", ".join(f"{name}: {value}" for name, value in wrong.items())
        raise WeightsError(f"{weights.source} is not for this model\n  " + "\n  ".join(lines), help=f"set {wanted}")
    if own and known.get("norm_eps", own["norm_eps"]) != own["norm_eps"]:
        report.notes.append(f"norm_eps: {known['norm_eps']:g} in the weights, {own['norm_eps']:g} in the model")
    if own and "num_heads" not in known and options_of(weights.tensors).get("num_heads") != own["num_heads"]:
        report.notes.append(f"num_heads: not stated in {weights.source}; {own['num_heads']} assumed")
    if own and "norm_pre.weight" in weights.tensors and "act_layer" not in known:  # CLIP's
        assumed = f"{own['act_layer']} and {own['norm_eps']:g} assumed"
        others = "networks of CLIP have an eps of 1e-05, and those of OpenAI quick_gelu"
        report.notes.append(f"act_layer and norm_eps: not stated in {weights.source}; {assumed}, but {others}")
