"""The model card of an artifact: the content of artifact.json for people."""

from typing import Any

from vitcli.deploy.gate import Comparison, MultiLabelComparison
from vitcli.image_size import height_and_width


def model_card(facts: dict[str, Any], class_names: list[str]) -> str:
    """README.md of the artifact. Everything in it was measured at the export or comes from the source."""
    title = f"# {facts['model']}, {facts['format']} {facts['precision']}\n"
    parts = [title, _use(facts), _input(facts, class_names), _proof(facts), _speed(facts)]
    parts += [_quantization(facts), _origin(facts)]
    return "\n".join(part for part in parts if part)


def _use(facts: dict[str, Any]) -> str:
    return (
        "".join(f"    {command}\n" for command in facts["use"]) + "\n"
        f"`{facts['file']}` is the network, `labels.txt` its classes in the order of the outputs. `artifact.json` and\n"
        "`artifact.txt` describe it for programs. `MANIFEST.json` has a hash of each file; a folder that differs\n"
        "from it is not loaded.\n"
        + ("The network contains code: load it only from people you trust.\n" if facts["holds_code"] else "")
    )


def _geometry(before: dict[str, Any], height: int, width: int) -> str:
    """How an image is resized before its center is cropped."""
    crop_pct = before["crop_pct"]
    scaled = f"{int(height / crop_pct)} x {int(width / crop_pct)} px"
    match before.get("crop_mode", "center"):
        case "squash":
            return f"Resize to {scaled}"
        case "border":
            return f"Resize to fit into {scaled}, with a border of the mean color"
        case _ if height == width:
            return f"Shorter side to {int(height / crop_pct)} px"
        case _:
            return f"Resize to cover {scaled}"


def _input(facts: dict[str, Any], class_names: list[str]) -> str:
    given, before = facts["input"], facts["preprocessing"]
    channels, (height, width) = before["in_channels"], height_and_width(before["image_resize"])
    batch = "B" if given["batch"] is None else given["batch"]
    if given["dtype"] == "uint8":
        tensor = f"({batch}, {height}, {width}, {channels}) uint8, {'RGB' if channels == 3 else 'gray'} 0..255"
        inside = f"Normalization and {facts['activation']} are inside: the output is probabilities."
    else:
        tensor = f"({batch}, {channels}, {height}, {width}) float32, (x / 255 - mean) / std"
        inside = f"mean {before['mean']}, std {before['std']}. The output is logits, for a {facts['activation']}."
    shown = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
    return (
        (
            "## Input and output\n\n"
            f"{_geometry(before, height, width)} ({before['interpolation']}, antialiased), "
            f"then the center {height} x {width} px.\n"
            f"Input: {tensor}. {inside}\n{len(class_names):,} classes: {shown}\n"
        )
        + _temperature(facts)
        + _thresholds(facts)
    )


def _temperature(facts: dict[str, Any]) -> str:
    temperature = facts.get("temperature", 1.0)
    if temperature == 1:
        return ""
    return (
        f"The probabilities are calibrated: the logits are divided by {temperature:.4g} inside the network, a\n"
        "temperature that was fitted on validation images (`vitcli validate RUN --temperature fit`).\n"
    )


def _thresholds(facts: dict[str, Any]) -> str:
    if not facts["thresholds"]:
        return ""
    return (
        "An image has any number of these classes: each whose probability is at least its threshold.\n"
        "`artifact.json` has the thresholds, in the order of `labels.txt`.\n"
    )


def _metric(facts: dict[str, Any]) -> type[Comparison]:
    """What the artifact was measured by."""
    return Comparison if facts["activation"] == "softmax" else MultiLabelComparison


def _proof(facts: dict[str, Any]) -> str:
    gate, kind = facts["gate"], _metric(facts)
    scores = f"same {kind.ANSWER}", f"{kind.TITLE} source", f"{kind.TITLE} here"
    heads = "images", "max. difference of a logit", "relative error", *scores
    lines = ["## Compared with the source", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, found in (("made up", gate["made_up"]), ("real", gate.get("real"))):
        if found:
            keys = f"{kind.METRIC}_source", f"{kind.METRIC}_artifact"
            source, artifact = (f"{found[key]:.2f} %" if key in found else "" for key in keys)
            numbers = [found[key] for key in ("max_difference", "relative_error")]
            differences = " | ".join("not finite" if x is None else f"{x:.2g}" for x in numbers)
            agreement = f"{found[f'{kind.METRIC}_agreement']:.2f} %"
            lines.append(f"| {found['num_images']:,} {title} | {differences} | {agreement} | {source} | {artifact} |")
    if interval := gate.get("interval95"):
        lines += ["", f"95 % interval of the top-1 here: {interval[0]:.2f} .. {interval[1]:.2f} %."]
    if gate["problems"]:
        lines += ["", "**Out of tolerance, exported with --accept**: " + "; ".join(gate["problems"]) + "."]
    if not gate.get("real"):
        lines += ["", "No real images were given, so the accuracy of this file is not known."]
    return "\n".join(lines) + "\n"


def _speed(facts: dict[str, Any]) -> str:
    speed = facts["speed"]
    here, eager = speed["artifact"], speed["eager"]
    by = "\nThe artifact was run by the reference implementation in PyTorch; the programs in deploy/ are faster."
    return (
        "## Speed and size\n\n"
        f"{speed['machine']}. Batch {speed['batch']}, {speed['threads']} threads, alternating with the source in\n"
        f"PyTorch (reparameterized, float32).{by if speed.get('is_reference') else ''}\n\n"
        "| | p50 | p95 | size |\n|---|---|---|---|\n"
        f"| PyTorch | {eager['p50_ms']:.2f} ms | {eager['p95_ms']:.2f} ms | {speed['eager_mb']:.1f} MB |\n"
        f"| this artifact | {here['p50_ms']:.2f} ms | {here['p95_ms']:.2f} ms | {speed['artifact_mb']:.1f} MB |\n"
    )


def _quantization(facts: dict[str, Any]) -> str:
    found, kind = facts.get("quantization"), _metric(facts)
    if not found:
        return ""
    lines = ["## Quantization", "", f"Ranges from {found['num_images']} images ({found['split']})."]
    if found["kept"]:
        lines += [f"Not quantized: {', '.join(found['kept'])}."]
    if found.get("tried"):
        lines += ["", f"| layers kept in float | {kind.TITLE} |", "|---|---|"]
        lines += [f"| {step['num_float']} | {step[kind.METRIC]:.2f} % |" for step in found["tried"]]
    lines += ["", "Error of the logits when only this layer is int8 (the ten worst):", ""]
    lines += ["| layer | error |", "|---|---|"]
    lines += [f"| {name} | {error:.2g} |" for name, error in list(found["layer_errors"].items())[:10]]
    return "\n".join(lines) + "\n"


def _origin(facts: dict[str, Any]) -> str:
    source, kind = facts["source"], _metric(facts)
    best = source.get(f"best_{kind.METRIC}")
    rows = [("weights", source["weights"]), ("SHA-256 of the weights file", source.get("sha256"))]
    rows += [(f"best {kind.TITLE} in training", f"{best:.2f} %" if best else None)]
    rows += [("training data", source.get("data")), ("license of the weights", source["license"])]
    rows += [("made with", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value)
    return f"## Origin\n\n| | |\n|---|---|\n{table}\n"
