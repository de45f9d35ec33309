"""The phases of gpu.py, one a process: `python benchmarks/gpu_phases.py PHASE cuda`. A result is a line of JSON."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_steps import (
    NETWORKS,
    Scale,
    as_pixels,
    by_turns,
    count_reads,
    gpu_kernels,
    own_optimizer,
    picture_folder,
    resume_run,
    same_networks,
    short_run,
    timed,
    training_step,
    wait,
    weights,
)
from torch import Tensor, nn

Result = dict[str, Any]

TINY = Scale(torch.device("cpu"), batch=2, rounds=1, steps=1, px=32, networks=1)


def device(scale: Scale) -> Iterator[Result]:
    """The GPU, the versions, and how many bytes per second a copy moves."""
    import torchvision

    from vitcli import __version__

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "vitcli": __version__}
    name = torch.cuda.get_device_name() if scale.device.type == "cuda" else "cpu"
    yield {"device": name, **versions, "gpu_kernels": gpu_kernels() is not None}
    source = torch.empty(2**28 if scale.device.type == "cuda" else 2**20, device=scale.device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), scale)
    yield {"copy_gb_per_second": round(2 * source.nbytes / seconds / 1e9, 1)}


def attention(scale: Scale) -> Iterator[Result]:
    """Which kernel of PyTorch multiplies queries, keys and values of ViT-S/16."""
    from vitcli.layers.attention import attention_kernel

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield {"dtype": str(dtype), "kernel": attention_kernel(scale.device, dtype, head_dim=64)}


def reads(scale: Scale) -> Iterator[Result]:
    """How often a step of each optimizer waits for the device: 0 is right."""
    from vitcli.catalog import OPTIMIZERS
    from vitcli.optim.optimizers import drop_step_if

    for opt in OPTIMIZERS:
        network = nn.Sequential(nn.Conv2d(3, 64, 8), nn.Flatten(), nn.Linear(64, 128)).to(scale.device)
        optimizer = own_optimizer(opt, network, scale.device)
        num_reads = 0
        for first in (True, False):
            for p in network.parameters():
                p.grad = torch.randn_like(p)
            drop_step_if(optimizer, torch.zeros((), dtype=torch.bool, device=scale.device))
            num_reads = 0 if first else count_reads(optimizer.step, scale.device)
        yield {"opt": opt, "reads_per_step": num_reads}


def fp16(scale: Scale) -> Iterator[Result]:
    """The loss scale of fp16 after some steps, and whether every weight is finite."""
    network = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 10)).to(scale.device)
    optimizer, scaler = own_optimizer("adamw", network, scale.device), torch.amp.GradScaler(scale.device.type)
    images = torch.randn(64, 64, device=scale.device)
    for _ in range(20):
        with torch.autocast(scale.device.type, torch.float16):
            loss = network(images).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    finite = all(bool(p.isfinite().all()) for p in network.parameters())
    yield {"loss": round(loss.item(), 4), "scale": scaler.get_scale(), "finite": finite}


def repeat(scale: Scale) -> Iterator[Result]:
    """Whether a second run, and one that was resumed, end with the same bits, in both memory layouts."""
    for channels_last in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            one, two, resumed = (Path(folder, name) for name in ("one", "two", "resumed"))
            keys = {"channels_last": channels_last, "device": scale.device.type}
            short_run(one, keys)
            short_run(two, keys)
            short_run(resumed, keys)
            shutil.rmtree(max((resumed / "checkpoints").glob("step-*")))
            resume_run(resumed)
            same = {name: weights(one) == weights(other) for name, other in (("repeated", two), ("resumed", resumed))}
        yield {"channels_last": channels_last, **same}


def tests(scale: Scale) -> Iterator[Result]:
    """The tests marked `gpu`."""
    words = "-o addopts= -m gpu -q --no-header -p no:cacheprovider"
    command = [sys.executable, "-m", "pytest", *words.split()]
    root = Path(__file__).parents[1]
    done = subprocess.run([*command, str(root / "tests")], capture_output=True, text=True, check=False, cwd=root)
    yield {"last_line": (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1], "exit_code": done.returncode}


def step(scale: Scale) -> Iterator[Result]:
    """Training steps in bf16 of vitcli's networks and timm's, by turns: eager, channels_last, with Triton kernels."""
    for ours, theirs, px in NETWORKS[: scale.networks]:
        timms, own = same_networks(ours, theirs, scale.px or px)
        candidates = {"timm": timms, "vitcli": own, "vitcli_channels_last": as_pixels(own)}
        candidates |= {"timm_channels_last": as_pixels(timms)}
        if scale.device.type == "cpu":  # PyTorch crashes with it there
            candidates = {name: network for name, network in candidates.items() if "channels_last" not in name}
        elif use := gpu_kernels():
            candidates["vitcli_kernels"] = use(as_pixels(own).to(scale.device))
        yield {"model": ours, "px": scale.px or px, "batch": scale.batch, "img_s": by_turns(candidates, scale, px)}


def compile(scale: Scale) -> Iterator[Result]:
    """Seconds to the first compiled step, and images per second: vitcli's parts and timm's whole graph."""
    from vitcli.parallel.parts import Compiler, compile_each, parts_of

    for ours, theirs, px in NETWORKS[: scale.networks]:
        timms, own = same_networks(ours, theirs, scale.px or px)
        compiler = Compiler(300)
        compile_each(parts_of(own), compiler)
        timms.compile()
        for name, network in (("vitcli", own), ("timm", timms)):
            take_step = training_step(network, scale, scale.px or px)
            start = time.perf_counter()
            take_step()
            wait(scale.device)
            first = round(time.perf_counter() - start, 1)
            rate = scale.batch / timed(take_step, scale)
            parts = {"parts": compiler.num_compiled} if name == "vitcli" else {}
            yield {"model": ours, "of": name, "first_step_s": first, "img_s": round(rate, 1), **parts}


def profile(scale: Scale) -> Iterator[Result]:
    """The ten kernels that a step of FastViT-T8 spends most time in, in percent."""
    from torch.profiler import ProfilerActivity

    from vitcli.models.registry import create_model

    take_step = training_step(create_model("fastvit_t8"), scale, scale.px or 256)
    take_step()
    on_gpu = scale.device.type == "cuda"
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        take_step()
        wait(scale.device)
    times = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in found.key_averages()}
    total = sum(times.values()) or 1.0
    for key in sorted(times, key=lambda key: -times[key])[:10]:
        yield {"kernel": key[:100], "percent": round(100 * times[key] / total, 1)}


def low_bit(scale: Scale) -> Iterator[Result]:
    """Milliseconds of the update of ViT-S/16 by AdamW with moments of 32, 8 and 4 bits, and their bytes."""
    from vitcli.models.registry import create_model

    network = create_model("vit_s_patch16", img_size=scale.px or 224).to(scale.device)
    for p in network.parameters():
        p.grad = torch.randn_like(p)
    for opt in ("adamw", "adamw_8bit", "adamw_4bit"):
        optimizer = own_optimizer(opt, network, scale.device)
        optimizer.step()
        size = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor))
        yield {"opt": opt, "ms": round(1000 * timed(optimizer.step, scale), 2), "moments_mb": round(size / 1e6, 1)}


def loop(scale: Scale) -> Iterator[Result]:
    """Images per second of whole trainings of FastViT-T8 with data: timm's loader and loop, and vitcli."""
    from train_loop import CACHES, WARM_UP_STEPS, timm_rate, vitcli_rate

    from vitcli import load_recipe
    from vitcli.data.loader import default_num_workers

    steps, px = 2 * WARM_UP_STEPS, scale.px or 256
    with tempfile.TemporaryDirectory() as folder:
        picture_folder(Path(folder), (steps + WARM_UP_STEPS) * scale.batch, px)
        recipe = load_recipe(
            None, data_dir=folder, model="fastvit_t8", opt="adamw", amp="auto", device=scale.device.type,
            image_resize=px, batch_size=scale.batch, num_parallel_workers=default_num_workers(),
        )  # fmt: skip
        yield {"of": "timm", "img_s": round(timm_rate(recipe, steps), 1)}
        for cache in CACHES:
            rate, wait = vitcli_rate(recipe.changed(cache=cache), steps)
            yield {"of": "vitcli", "cache": cache, "img_s": round(rate, 1), "data_wait": round(wait, 3)}


def deploy(scale: Scale) -> Iterator[Result]:
    """Seconds to export FastViT-T8 by AOTInductor, the largest difference of a logit, and images per second."""
    from vitcli.deploy.formats import Order, open_format
    from vitcli.deploy.network import Deployed, for_runtime
    from vitcli.models.registry import create_model

    network, form = create_model("fastvit_t8").eval().to(scale.device), open_format("aoti", to="export")
    images = torch.randn(min(scale.batch, 16), 3, scale.px or 256, scale.px or 256, device=scale.device)
    deployed = Deployed(for_runtime(network)).eval().to(scale.device)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        start = time.perf_counter()
        form.export(
            Order(deployed, images, Path(folder), "fp32", "logits", batch=len(images), device=scale.device.type)
        )
        yield {"export_s": round(time.perf_counter() - start, 1)}
        artifact = torch._inductor.aoti_load_package(str(Path(folder, form.FILE)))
        yield {"max_difference": (artifact(images) - network(images)).abs().max().item()}
        for name, run in (("artifact", artifact), ("eager", network)):
            yield {"of": name, "img_s": round(len(images) / timed(lambda run=run: run(images), scale), 1)}


PHASES: dict[str, Callable[[Scale], Iterator[Result]]] = {
    function.__name__: function
    for function in (
        device, attention, reads, fp16, repeat, tests, step, profile, compile, low_bit, loop, deploy,
    )
}  # fmt: skip


def main(name: str, kind: str) -> None:
    scale = Scale(torch.device("cuda")) if kind == "cuda" else TINY
    for result in PHASES[name](scale):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
