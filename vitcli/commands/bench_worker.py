"""One network of `vitcli bench infer` in a process of its own: threads, pools and memory of others do not disturb it.

`python -m vitcli.commands.bench_worker JSON` opens what the JSON names and answers with a line of JSON: what it is, or
why it cannot be measured. Then each line on standard input, a number of seconds, is answered by the times of the calls
that were made in them. Between two lines nothing is computed.
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
from vitcli.recipe.plugins import use_plugin
from vitcli.weights.fetch import is_remote

#: thread pools go on spinning after their last work (ONNX Runtime's for some 60 ms): by now those of the others ended
PAUSE_SECONDS = 0.15
_PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "executorch")


@dataclass(frozen=True)
class Order:
    """What a worker is to open. img_size: of models by name; None: the published one."""

    item: str
    batch: int
    threads: int
    img_size: int | None = None
    plugins: tuple[str, ...] = ()


class NotForThisBatch(Exception):
    """The network takes another number of images at a time; that is no failure."""


@dataclass(frozen=True)
class Network:
    run: Callable[[], object]  #: one batch
    format: str
    precision: str
    size_bytes: int


def open_network(order: Order) -> Network:
    """The network that `order.item` names; an existing path comes before a name.

    Raises:
        VitcliError: nothing is called so, or it cannot run here.
        NotForThisBatch: its batch size is fixed, and another one.
    """
    if is_artifact(order.item):
        return _artifact(order)
    if order.item.startswith("timm:"):
        return _of_timm(order)
    return _of_weights(order) if is_remote(order.item) or Path(order.item).exists() else _of_registry(order)


def _artifact(order: Order) -> Network:
    artifact = open_artifact(order.item)
    if artifact.batch not in (None, order.batch):
        raise NotForThisBatch(f"takes {artifact.batch} at a time")
    side = artifact.preprocessing.image_resize
    generator = np.random.default_rng(0)
    if artifact.takes_pixels:
        images = generator.integers(0, 256, (order.batch, side, side, artifact.in_channels), dtype=np.uint8)
    else:
        images = generator.standard_normal((order.batch, artifact.in_channels, side, side), dtype=np.float32)
    session = open_session(artifact, threads=order.threads)
    return Network(lambda: session(images), artifact.format, artifact.precision, size_bytes(artifact.folder))


def _of_weights(order: Order) -> Network:
    from vitcli.layers.reparam import reparameterize
    from vitcli.networks.opened import open_model

    opened = open_model(order.item)
    recipe = opened.recipe
    model = reparameterize(opened.model, fold="full")
    return _eager(model, order, img_size=recipe.augmentation.image_resize, in_channels=recipe.model.in_channels)


def _of_registry(order: Order) -> Network:
    from vitcli.catalog import model_info
    from vitcli.layers.reparam import reparameterize
    from vitcli.models.registry import create_model

    size = order.img_size or model_info(order.item).img_size
    return _eager(reparameterize(create_model(order.item, img_size=size), fold="full"), order, img_size=size)


def _of_timm(order: Order) -> Network:
    """timm's own model of that name, in the form that timm's own function makes of it."""
    try:
        import timm
        from timm.utils.model import reparameterize_model
    except ImportError:
        raise UsageError(f"{order.item} needs timm", help="pip install timm") from None
    name = order.item.removeprefix("timm:")
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}")
    model: Any = timm.create_model(name, pretrained=False).eval()
    size = order.img_size or model.pretrained_cfg["input_size"][-1]
    if order.img_size and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=size)
    return _eager(reparameterize_model(model), order, img_size=size)


def _eager(model: Any, order: Order, *, img_size: int, in_channels: int = 3) -> Network:
    """`model` as PyTorch runs it, operator by operator, in float32."""
    import torch

    torch.set_num_threads(order.threads)
    images = torch.randn(order.batch, in_channels, img_size, img_size, generator=torch.Generator().manual_seed(0))
    model = model.eval().requires_grad_(False)
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return Network(run, "pytorch", "fp32", size)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for answer in _answers(Order(**json.loads(sys.argv[1]))):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(order: Order) -> Iterator[dict[str, Any]]:
    bare = memory_bytes("VmRSS")
    try:
        for file in order.plugins:
            use_plugin(Path(file))
        network = open_network(order)
        network.run()  # what is compiled or laid out on first use
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
    except Exception as error:  # of any library; the other networks are measured all the same
        yield {"why_not": " ".join(f"{type(error).__name__}: {error}".split()), "failed": True}


def memory_bytes(name: str) -> int | None:
    """VmRSS: the memory that is resident now; VmHWM: at the highest so far. None where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return 1024 * int(line.split()[1])
    return None


def forget_peak() -> None:
    """Let VmHWM begin anew: opening and folding a network takes more memory than running it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
