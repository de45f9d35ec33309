"""One network of `vitcli bench infer` in a process of its own, undisturbed by threads and memory of the others.

`python -m vitcli.deploy.measure_worker JSON` opens the candidate in the JSON and answers with a line of JSON: what it
is, or why it cannot be measured. Each line on standard input, a number of seconds, is answered with the times of the
calls made in that time. Between two lines nothing is computed.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.deploy.artifact import is_artifact, open_artifact, size_bytes
from vitcli.deploy.classify import open_session
from vitcli.deploy.timing import by_turns
from vitcli.errors import UsageError, VitcliError
from vitcli.image_size import ImageSize, height_and_width
from vitcli.recipe.plugins import use_plugin
from vitcli.weights.address import is_remote

#: thread pools keep spinning after their last work (ONNX Runtime's for about 60 ms); after this time those of the
#: other workers are idle
PAUSE_SECONDS = 0.15
_PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "executorch")


@dataclass(frozen=True)
class Candidate:
    """What a worker opens."""

    item: str  #: an artifact, weights, the name of a model, or "timm:NAME"
    batch: int
    threads: int
    img_size: int | None = None  #: input size in pixels of models given by name; None: the published size
    plugins: tuple[str, ...] = ()


class NotForThisBatch(Exception):
    """The network has a fixed batch size other than the one wanted; this is not a failure."""


@dataclass(frozen=True)
class Network:
    run: Callable[[], object]  #: one batch
    format: str
    precision: str
    size_bytes: int


def open_network(candidate: Candidate) -> Network:
    """The network that `candidate.item` names; an existing path has priority over a name."""
    if is_artifact(candidate.item):
        return _artifact(candidate)
    return _of_timm(candidate) if candidate.item.startswith("timm:") else _of_vitcli(candidate)


def _artifact(candidate: Candidate) -> Network:
    artifact = open_artifact(candidate.item)
    if artifact.batch not in (None, candidate.batch):
        raise NotForThisBatch(f"takes {artifact.batch} at a time")
    height, width = artifact.preprocessing.height_and_width
    generator = np.random.default_rng(0)
    if artifact.takes_pixels:
        images = generator.integers(0, 256, (candidate.batch, height, width, artifact.in_channels), dtype=np.uint8)
    else:
        images = generator.standard_normal((candidate.batch, artifact.in_channels, height, width), dtype=np.float32)
    session = open_session(artifact, threads=candidate.threads)
    return Network(lambda: session(images), artifact.format, artifact.precision, size_bytes(artifact.folder))


def _of_vitcli(candidate: Candidate) -> Network:
    """The network of a run or other weights, or a new model of the registry; fully folded."""
    from vitcli.layers.reparam import reparameterize
    from vitcli.models.registry import create_model, model_info
    from vitcli.networks.opened import open_model

    if is_remote(candidate.item) or Path(candidate.item).exists():
        opened = open_model(candidate.item)
        model, recipe = opened.model, opened.recipe
        size, in_channels = recipe.augmentation.image_resize, recipe.model.in_channels
    else:
        size, in_channels = candidate.img_size or model_info(candidate.item).img_size, 3
        model = create_model(candidate.item, img_size=size)
    return _eager(reparameterize(model, fold="full"), candidate, img_size=size, in_channels=in_channels)


def _of_timm(candidate: Candidate) -> Network:
    """timm's own model of that name, reparameterized by timm's own function."""
    try:
        import timm
        from timm.utils.model import reparameterize_model
    except ImportError:
        raise UsageError(f"{candidate.item} needs timm", help="pip install timm") from None
    name = candidate.item.removeprefix("timm:")
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}", help="`timm.list_models()` lists them")
    model: Any = timm.create_model(name, pretrained=False).eval()
    size = candidate.img_size or model.pretrained_cfg["input_size"][-1]
    if candidate.img_size and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=size)
    return _eager(reparameterize_model(model), candidate, img_size=size)


def _eager(model: Any, candidate: Candidate, *, img_size: ImageSize, in_channels: int = 3) -> Network:
    """`model` as PyTorch runs it, operator by operator, in float32."""
    import torch

    torch.set_num_threads(candidate.threads)
    shape = (candidate.batch, in_channels, *height_and_width(img_size))
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = model.eval().requires_grad_(False)
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return Network(run, "pytorch", "fp32", size)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for answer in _answers(Candidate(**json.loads(sys.argv[1]))):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(candidate: Candidate) -> Iterator[dict[str, Any]]:
    bare = memory_bytes("VmRSS")
    try:
        for file in candidate.plugins:
            use_plugin(Path(file))
        network = open_network(candidate)
        network.run()  # compilation and memory layout happen on first use
        forget_peak()
        packages = [name for name in _PACKAGES if name in sys.modules]
        yield {"format": network.format, "precision": network.precision, "size_bytes": network.size_bytes,
               "packages": packages}  # fmt: skip
        for line in sys.stdin:
            time.sleep(PAUSE_SECONDS)
            times = by_turns({"": network.run}, rounds=1, seconds=float(line))[""]
            peak = memory_bytes("VmHWM")
            yield {"times_ms": times.tolist(), "memory_bytes": peak - bare if peak and bare else None}
    except NotForThisBatch as reason:
        yield {"why_not": str(reason), "failed": False}
    except VitcliError as error:
        yield {"why_not": "; ".join(filter(None, (error.message, error.help))), "failed": True}
    except Exception as error:  # of any library; the other networks are still measured
        yield {"why_not": " ".join(f"{type(error).__name__}: {error}".split()), "failed": True}


def memory_bytes(name: str) -> int | None:
    """VmRSS: the memory that is resident now; VmHWM: the highest so far. None where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return 1024 * int(line.split()[1])
    return None


def forget_peak() -> None:
    """Reset VmHWM: opening and folding a network takes more memory than running it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
