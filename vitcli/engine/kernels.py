"""Chooses the kernels of a run on a GPU by measurement, once: a run that is resumed keeps those that it began with.

Other kernels would give other bits, so the choice is in every checkpoint. It is also remembered in the user's cache,
for runs with the same network, images, device and versions.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitcli.disk import write_whole
from vitcli.distributed import decided_on_main
from vitcli.engine.failures import failure_of_gpu, memory_in_words
from vitcli.engine.training import Training
from vitcli.errors import DataError, VitcliError
from vitcli.image_size import height_and_width
from vitcli.layers import gpu
from vitcli.layers.gpu.choice import Choice, Measured, Timer, apply, kinds_of_layers, measure
from vitcli.weights.json_file import read_json

#: time for measuring the kinds of layers; those left over keep PyTorch's kernels. Most of it is the first compilation
BUDGET_SECONDS = 90
TIMED_RUNS = 5
#: name in the state of a checkpoint
KERNELS = "kernels"


def choose_kernels(training: Training, before: dict[str, Any] | None, timer: Timer | None = None) -> None:
    """Let the network use the kernels that are fastest here, or those of `before`, the state of a checkpoint.

    Every rank must call it; rank 0 measures. Nothing is done for networks whose layers have one kind of kernel only.
    """
    chosen = Choice.from_json(before.get(KERNELS)) if before else None
    if not kinds_of_layers(training.task):
        if chosen and chosen.layers:
            training.reporter.note(
                "the run began with Triton's kernels and goes on with PyTorch's: not to the last bit"
            )
        return
    if before is not None:
        # a run that began without a choice used PyTorch's kernels
        choice = chosen or Choice(training.channels_last, ())
    else:
        choice = decided_on_main(lambda: _remembered_or_measured(training, timer or _seconds))
    apply(choice, training.task)
    training.channels_last = training.channels_last or choice.channels_last
    training.facts[KERNELS] = choice.as_json()


def _remembered_or_measured(training: Training, timer: Timer) -> Choice:
    say, note = training.reporter.say, training.reporter.note
    images = _images(training)
    file = _cache_folder() / f"{_digest(training, images)}.json"
    if file.exists():
        try:
            if choice := Choice.from_json(read_json(file)):
                say(f"kernels  {_in_words(choice)}, as measured before")
                return choice
            note(f"{file} is not a choice of kernels; it is written again")
        except DataError as error:
            note(f"{error.message}; it is written again")
    measured = _measured(training, images, timer)
    gain = measured.native / measured.chosen
    say(f"kernels  {_in_words(measured.choice)}: {gain:.2f} times the speed of PyTorch's own in forward and backward")
    if measured.refused:
        note(f"PyTorch's kernels are used where Triton's failed or were less exact: {', '.join(measured.refused)}")
    if measured.unmeasured:
        note(f"{measured.unmeasured} kinds of layers were not measured within {BUDGET_SECONDS} seconds")
        return measured.choice
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(measured.choice.as_json(), indent=1) + "\n")
    except (OSError, VitcliError) as error:
        note(f"the choice of kernels is not remembered: {getattr(error, 'message', error)}")
    return measured.choice


def _measured(training: Training, images: torch.Tensor, timer: Timer) -> Measured:
    end = time.monotonic() + BUDGET_SECONDS
    try:
        with memory_in_words("lower --batch_size"):
            return measure(
                training.task.network.train(),
                images,
                training.autocast,
                timer,
                may_change_layout=not training.channels_last,
                has_time=lambda: time.monotonic() < end,
            )
    except torch.AcceleratorError as error:
        raise failure_of_gpu(error, "nothing was written while kernels were being timed: start it again") from None


def _images(training: Training) -> torch.Tensor:
    """A batch of noise, of the size of the run's."""
    recipe = training.recipe
    height, width = height_and_width(recipe.augmentation.image_resize)
    generator = torch.Generator().manual_seed(0)
    shape = recipe.dataset.batch_size, recipe.model.in_channels, height, width
    return torch.randn(shape, generator=generator).to(training.world.device)


def _seconds(run: Callable[[], object]) -> float:
    """The fastest of some runs after a first one, on the current GPU."""
    run()
    times = []
    for _ in range(TIMED_RUNS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _in_words(choice: Choice) -> str:
    layout = "channels_last" if choice.channels_last else "NCHW"
    return f"Triton for {len(choice.layers)} kinds of layers, {layout}" if choice.layers else f"PyTorch's, {layout}"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitcli" / "kernels"


def _digest(training: Training, images: torch.Tensor) -> str:
    """Of all that the times depend on: network, images, data type, device, versions, and the kernels themselves."""
    import triton

    device = training.world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    autocast = training.autocast()
    facts = [str(training.task.network), tuple(images.shape), str(autocast.fast_dtype), autocast._enabled]
    facts += [training.channels_last, name, torch.__version__, triton.__version__]
    sources = sorted(Path(gpu.__file__).parent.glob("*.py"))
    content = repr(facts).encode() + b"".join(source.read_bytes() for source in sources)
    return hashlib.sha256(content).hexdigest()[:32]
