"""An exported network as a directory: all that its user needs, and a manifest by which damage is known.

    OUT/model.*         the network, in the format's own file(s)
        artifact.json   format, precision, input, output, preprocessing; what was measured at the export
        labels.txt      the name of each class, one a line, in the order of the outputs
        recipe.yaml     how the network was trained, where that is known
        README.md       the same for people: the model card
        MANIFEST.json   size and SHA-256 of each of these

Nothing here imports torch: what reads an artifact must start fast and run without it.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Augmentation
from vitcli.weights.manifest import MANIFEST, names_in_manifest, verify_manifest, write_manifest

FACTS = "artifact.json"
LABELS = "labels.txt"
RECIPE = "recipe.yaml"
CARD = "README.md"


@dataclass(frozen=True)
class Artifact:
    """One that was opened and found to be as it was written."""

    folder: Path
    facts: dict[str, Any]  #: artifact.json
    class_names: list[str]

    @property
    def format(self) -> str:
        return self.facts["format"]

    @property
    def precision(self) -> str:
        return self.facts["precision"]

    @property
    def file(self) -> Path:
        """The network."""
        return self.folder / self.facts["file"]

    @property
    def takes_pixels(self) -> bool:
        """Whether pixels (B, H, W, C) uint8 go in and probabilities come out; else normalized (B, C, H, W), logits."""
        return self.facts["input"]["dtype"] == "uint8"

    @property
    def batch(self) -> int | None:
        """The only number of images that the network takes at a time; None: any."""
        return self.facts["input"]["batch"]

    @cached_property
    def preprocessing(self) -> Augmentation:
        """What is done to an image first; the keys that matter in evaluation are set."""
        return Augmentation(**{k: v for k, v in self.facts["preprocessing"].items() if k != "in_channels"})

    @property
    def in_channels(self) -> int:
        return self.facts["preprocessing"]["in_channels"]


def is_artifact(path: str | Path) -> bool:
    return (Path(path) / FACTS).is_file()


def open_artifact(folder: str | Path) -> Artifact:
    """The artifact in `folder`, once every file has the size and SHA-256 it was written with.

    Some formats hold native code, so nothing of an artifact is used before that.

    Raises:
        DataError: a file is missing, cut off or changed, or artifact.json cannot be understood.
    """
    folder = Path(folder)
    if problems := verify_manifest(folder) or _not_vouched_for(folder):
        raise DataError(
            f"the artifact {folder} is not as it was exported: {'; '.join(problems)}",
            help="copy it again, all files of the folder together, or export it anew",
        )
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        artifact = Artifact(folder, facts, (folder / LABELS).read_text(encoding="utf-8").splitlines())
        assert artifact.facts["file"] in names_in_manifest(folder), f"{MANIFEST} lacks its file"
        assert isinstance(artifact.format, str)
        assert isinstance(artifact.precision, str)
        assert artifact.batch is None or artifact.batch > 0
        _ = artifact.takes_pixels, artifact.preprocessing, artifact.in_channels
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{folder / FACTS} cannot be understood ({reason})", help="export it anew") from None
    return artifact


def _not_vouched_for(folder: Path) -> list[str]:
    """Files of the artifact of which the manifest says nothing; what else lies in the folder is nobody's business."""
    ours = {FACTS, LABELS, *(path.name for path in folder.glob("model.*"))}
    return [f"{name} is not in {MANIFEST}" for name in sorted(ours - names_in_manifest(folder))]


class NewArtifact:
    """A folder beside `out` that becomes `out` when all is done, or is gone when it is not.

    Raises UsageError where `out` exists or cannot be made.
    """

    def __init__(self, out: Path) -> None:
        if os.path.lexists(out):
            raise UsageError(f"{out} exists", help="give another -o, or remove it: nothing is overwritten")
        self.out = out
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror}") from None

    def __enter__(self) -> "NewArtifact":
        """From here on the polite ways to end a process leave nothing behind either."""
        self.handlers = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def write(self, facts: dict[str, Any], class_names: list[str], recipe: str | None) -> Artifact:
        """Put the description beside the network; the artifact can be opened then, where it stands for now."""
        self._put(FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        self._put(LABELS, "".join(" ".join(name.splitlines()) + "\n" for name in class_names))
        if recipe is not None:
            self._put(RECIPE, recipe)
        write_manifest(self.folder)
        return open_artifact(self.folder)

    def finish(self, facts: dict[str, Any], card: str) -> Artifact:
        """Give the folder its name, with `facts` as they are now known and the model card."""
        self._put(FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        self._put(CARD, card)
        write_manifest(self.folder)
        self.folder.chmod(0o755)
        os.rename(self.folder, self.out)
        return open_artifact(self.out)

    def _put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def size_bytes(folder: Path) -> int:
    """Of the network's own files."""
    ours = (FACTS, LABELS, RECIPE, CARD, MANIFEST)
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name not in ours)
