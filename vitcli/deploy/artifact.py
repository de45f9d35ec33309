"""An exported network as a directory: everything its user needs, and a manifest by which damage is detected.

    OUT/model.*         the network, in one or more files of the format
        artifact.json   format, precision, input, output, preprocessing; the results of the export's checks
        artifact.txt    what a program needs to run it, as lines of key=value; see deploy/cpp/README.md
        labels.txt      the name of each class, one per line, in the order of the outputs
        recipe.yaml     how the network was trained, if that is known
        README.md       the model card
        MANIFEST.json   size and hash of each of these

Nothing here imports torch: a program that runs an artifact must start fast and work without it.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import normalize

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from vitcli.data.class_names import named_outputs
from vitcli.data.eval_transform import border_color
from vitcli.deploy.key_values import to_text
from vitcli.errors import DataError, UsageError
from vitcli.image_size import height_and_width
from vitcli.recipe.schema import Augmentation
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import sha256_of, verify_manifest, write_manifest

FACTS = "artifact.json"
TEXT = "artifact.txt"
TEXT_VERSION = 4
LABELS = "labels.txt"
RECIPE = "recipe.yaml"
CARD = "README.md"
#: artifact.json of earlier versions
OLD_FACTS = "artefact.json"
AGAIN = "export it again, or copy it again with all files of the folder"


class _Input(BaseModel):
    model_config = ConfigDict(strict=True)
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    batch: PositiveInt | None


class _Facts(BaseModel):
    """The entries of artifact.json that are used to run the network."""

    model_config = ConfigDict(strict=True)
    format: str
    file: str
    precision: str
    device: str
    output: Literal["probabilities", "logits"]
    #: softmax: each image has one class; sigmoid: any number, those from their threshold on
    activation: Literal["softmax", "sigmoid"] = "softmax"
    thresholds: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    input: _Input
    preprocessing: dict[str, Any]


@dataclass(frozen=True)
class Artifact:
    """An artifact that was opened and found to be as it was written."""

    folder: Path
    facts: dict[str, Any]  #: artifact.json
    class_names: list[str]
    format: str
    precision: str
    file: Path  #: the network
    #: pixels (B, H, W, C) uint8 in and probabilities out; otherwise normalized (B, C, H, W) float32 and logits
    takes_pixels: bool
    batch: int | None  #: the only batch size that the network takes; None: any
    #: (num_classes,) the probability, a sigmoid, from which on an image has a class; None: one class by softmax
    thresholds: np.ndarray | None
    preprocessing: Augmentation  #: how an image becomes the input; the keys that evaluation uses are set
    in_channels: int


def is_artifact(path: str | Path) -> bool:
    """Whether `path` is an exported folder, also of an earlier version, which `open_artifact` refuses."""
    return any((Path(path) / name).is_file() for name in (FACTS, OLD_FACTS))


def fixed_by_export(options: Sequence[str], help: str) -> UsageError:
    """What to raise for options that would change an exported network."""
    given = ", ".join(f"--{name}" for name in options)
    return UsageError(f"{given}: an exported network can no longer be changed, nor can its preprocessing", help=help)


def open_artifact(folder: str | Path, *, class_names: Path | None = None) -> Artifact:
    """The artifact in `folder`, after every file was found to have the size and hash that the manifest lists.

    Some formats contain native code, so nothing of an artifact is used before that. A file `class_names` names the
    outputs instead of labels.txt.

    Raises:
        DataError: a file is missing, cut off or changed; artifact.json is not valid; or an earlier version of this
            program exported it.
    """
    folder = Path(folder)
    if (folder / OLD_FACTS).is_file() or ((folder / FACTS).is_file() and not (folder / TEXT).exists()):
        message = f"the artifact {folder} was exported by an earlier version of vitcli, or lacks {TEXT}"
        raise DataError(message, help="export it again with this version")
    network = {path.name for path in _network_files(folder)}
    if problems := verify_manifest(folder, {FACTS, TEXT, LABELS, *network}):
        raise DataError(f"the artifact {folder} is damaged: {'; '.join(problems)}", help=AGAIN)
    facts = read_json(folder / FACTS, help=AGAIN)
    try:
        found = _checked(facts, network)
        in_channels = found.preprocessing.pop("in_channels")
        preprocessing = Augmentation(**found.preprocessing)
        labels = normalize("NFC", (folder / LABELS).read_text(encoding="utf-8")).splitlines()
        thresholds = _thresholds_of(found, len(labels))
    except (OSError, ValueError) as error:
        reason = "; ".join(str(error).splitlines()[:3])
        raise DataError(f"{folder / FACTS} is not valid ({reason})", help=AGAIN) from None
    return Artifact(
        folder,
        facts,
        named_outputs(class_names, len(labels)) if class_names else labels,
        format=found.format,
        precision=found.precision,
        file=folder / found.file,
        takes_pixels=found.input.dtype == "uint8",
        batch=found.input.batch,
        thresholds=thresholds,
        preprocessing=preprocessing,
        in_channels=in_channels,
    )


def _checked(facts: dict[str, Any], network: set[str]) -> _Facts:
    """What is needed to run the network, one of the files `network`; ValueError if something is missing."""
    found = _Facts.model_validate(facts)
    if found.file not in network:
        raise ValueError(f"its file {found.file[:40]!r} is not one of {', '.join(sorted(network)) or 'model.*'}")
    channels = found.preprocessing.get("in_channels")
    if type(channels) is not int or channels < 1:
        raise ValueError("in_channels is not a whole number above 0")
    for name in ("mean", "std"):
        values = found.preprocessing.get(name)
        if not isinstance(values, list) or len(values) not in (1, channels):
            raise ValueError(f"{name} does not have one number per channel")
    return found


def _thresholds_of(found: _Facts, num_classes: int) -> np.ndarray | None:
    """ValueError unless there is one for each class, or softmax and none."""
    if (len(found.thresholds or ()), found.activation) not in ((0, "softmax"), (num_classes, "sigmoid")):
        raise ValueError(f"thresholds are for sigmoid, one for each of {num_classes} classes")
    return None if found.thresholds is None else np.array(found.thresholds)


def check_is_new(out: Path) -> None:
    """UsageError if there is anything at `out`."""
    if os.path.lexists(out):
        raise UsageError(f"{out} exists", help="give another -o, or remove it: nothing is overwritten")


class NewArtifact:
    """A temporary folder next to `out`, later renamed to `out` or removed. UsageError if `out` cannot be created."""

    def __init__(self, out: Path) -> None:
        check_is_new(out)
        self.out = out
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror}") from None

    def __enter__(self) -> "NewArtifact":
        """From here on, SIGTERM and SIGHUP remove the folder too."""
        self.handlers = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def write(self, facts: dict[str, Any], class_names: list[str], recipe: str | None) -> Artifact:
        """Describe the network that was written to the folder; the artifact is opened where it is for now."""
        self._put(LABELS, "".join(" ".join(name.splitlines()) + "\n" for name in class_names))
        self._describe(facts)
        if recipe is not None:
            self._put(RECIPE, recipe)
        write_manifest(self.folder)
        return open_artifact(self.folder)

    def finish(self, facts: dict[str, Any], card: str) -> Artifact:
        """Add the model card and the final `facts`, and rename the folder to `out`."""
        self._describe(facts)
        self._put(CARD, card)
        write_manifest(self.folder)
        self.folder.chmod(0o755)
        os.rename(self.folder, self.out)
        return open_artifact(self.out)

    def _describe(self, facts: dict[str, Any]) -> None:
        self._put(FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        self._put(TEXT, _text(facts, self.folder))

    def _put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _text(facts: dict[str, Any], folder: Path) -> str:
    """The content of artifact.txt. Its last line is the SHA-256 of the others, by which damage is detected."""
    given, before = facts["input"], facts["preprocessing"]
    values = {
        "artifact_version": TEXT_VERSION,
        **{name: facts[name] for name in ("model", "format", "precision", "device")},
        "network": facts["file"],
        "labels": LABELS,
        "input_dtype": given["dtype"],
        "input_layout": given["layout"],
        "input_batch": "any" if given["batch"] is None else given["batch"],
        "output": facts["output"],
        "activation": facts["activation"],
        **({"thresholds": ",".join(map(str, facts["thresholds"]))} if facts["thresholds"] else {}),
        **dict(zip(("image_height", "image_width"), height_and_width(before["image_resize"]), strict=True)),
        "crop_mode": before["crop_mode"],
        "border": ",".join(map(str, border_color(before["mean"], before["in_channels"]))),
        "crop_pct": before["crop_pct"],
        # "random" draws from two filters in training; evaluation uses the second
        "interpolation": "bicubic" if before["interpolation"] == "random" else before["interpolation"],
        "in_channels": before["in_channels"],
        "pixel_range": _numbers_or_word(before["pixel_range"]),
        **{name: _per_channel(before[name], before["in_channels"]) for name in ("mean", "std")},
        **{f"sha256.{path.name}": sha256_of(path) for path in sorted([folder / LABELS, *_network_files(folder)])},
    }
    return to_text(values)


def _per_channel(values: list[float] | tuple[float, ...], channels: int) -> str:
    repeated = list(values) * (channels if len(values) == 1 else 1)
    return ",".join(str(float(value)) for value in repeated)


def _numbers_or_word(value: str | Sequence[float]) -> str:
    return value if isinstance(value, str) else ",".join(str(float(number)) for number in value)


def _network_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("model.*") if path.is_file()]


def size_bytes(folder: Path) -> int:
    """The size of the network's files."""
    return sum(path.stat().st_size for path in _network_files(folder))
