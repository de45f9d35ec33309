"""Every check and figure that needs a GPU, in one command of under ten minutes, with timm in the same process.

    python benchmarks/gpu.py --out gpu.json

1. the tests marked `gpu`
2. the quickstart with bf16 and torch.compile on CUDA: accuracy, and a resume of it
3. training steps of FastViT-T8, ViT-S/16 and ViT-S/32, eager and compiled, vitcli's and timm's, taking turns
4. the same step of ViT-S/16 with and without half of its patches (PatchDropout)
5. AOTInductor artifacts: parity, and images per second compared with timm's network, eager and compiled
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vitcli.deploy.formats import Order, open_format
from vitcli.deploy.network import DTYPES, Deployed, for_runtime
from vitcli.models.registry import create_model, model_info

#: our name, timm's, px, and whether the layout NHWC is worth a try
NETWORKS = [
    ("fastvit_t8", "fastvit_t8", 256, True),
    ("vit_s_patch16", "vit_small_patch16_224", 224, False),
    ("vit_s_patch32", "vit_small_patch32_224", 224, False),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: to try the script itself")
    parser.add_argument("--size-px", type=int, help="for all networks")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    results: dict = {"torch": torch.__version__, "device": device_name(device)}
    results["tests"] = gpu_tests()
    results["quickstart"] = quickstart(options.device)
    results["train_step"] = [
        train_step(options, device, names, px=options.size_px or px, compiled=compiled, channels_last=layout)
        for *names, px, tries_layout in NETWORKS
        for compiled in (False, True)
        for layout in (False, True)[: 1 + (tries_layout and device.type != "cpu")]  # PyTorch 2.15 crashes on CPUs
    ]
    results["patch_dropout"] = patch_dropout(options, device)
    results["deployment"] = [deployment(options, device, names) for *names, _, _ in NETWORKS[:2]]
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_tests() -> str:
    """The last line of pytest."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", "gpu", "-q", "--no-header"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [done.stderr])[-1]


def quickstart(device: str) -> dict:
    """Seconds and accuracy of `vitcli train -c quickstart` with bf16 and compilation, and of going on with it."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        train = [sys.executable, "-m", "vitcli", "train", "--device", device]
        words = ["-c", "quickstart", "--amp", "bf16", "--compile", "True", "--run_dir", run]
        start = time.perf_counter()
        subprocess.run([*train, *words], check=True)
        seconds = time.perf_counter() - start
        newest = max(Path(run, "checkpoints").glob("step-*"))
        shutil.rmtree(newest)
        subprocess.run([*train, "--resume", run], check=True)
        status = json.loads(Path(run, "status.json").read_text())
    return {"seconds": round(seconds, 1), "best_top1": status["best"], "resumed_to_step": status["step"]}


def train_step(
    options: argparse.Namespace,
    device: torch.device,
    names: list[str],
    *,
    px: int,
    compiled: bool,
    channels_last: bool,
) -> dict:
    """Images per second of forward, loss, backward and fused AdamW in bf16, for both models, taking turns."""
    import timm

    name, timms = names
    size = {"img_size": px} if name.startswith("vit_") else {}
    theirs, ours = timm.create_model(timms, **size), create_model(name, **size)
    ours.load_state_dict(theirs.state_dict())
    rates = by_turns([ours, theirs], options, device, px, compiled, channels_last)
    mode = {"model": name, "compile": compiled, "channels_last": channels_last, "batch_size": options.batch_size}
    return mode | {"px": px, "ours": rates[0], "timm": rates[1], "ratio": round(rates[0] / rates[1], 3)}


def patch_dropout(options: argparse.Namespace, device: torch.device) -> dict:
    """Images per second of ViT-S/16 with half of the patches, and with all."""
    px = options.size_px or 224
    models = [create_model("vit_s_patch16", img_size=px, patch_drop_rate=share) for share in (0.5, 0.0)]
    half, all_ = by_turns(models, options, device, px, compiled=False, channels_last=False)
    return {"half": half, "all": all_, "ratio": round(half / all_, 3)}


def deployment(options: argparse.Namespace, device: torch.device, names: list[str]) -> dict:
    """Largest difference of a logit in float32, and images per second by batch."""
    import timm
    from timm.utils.model import reparameterize_model

    name, timms = names
    px = options.size_px or model_info(name).img_size
    size = {"img_size": px} if name.startswith("vit_") else {}
    theirs, ours = timm.create_model(timms, **size).eval().to(device), create_model(name, **size).eval()
    ours.load_state_dict(theirs.state_dict())
    fused = reparameterize_model(theirs)
    facts: dict = {"model": name, "px": px, "img_s": []}
    for batch in (1, min(64, options.batch_size)):
        images = torch.randn(batch, 3, px, px, device=device)
        low = torch.autocast(device.type, torch.bfloat16)
        exact, quick = (exported(ours, images, precision) for precision in ("fp32", "bf16"))
        with torch.inference_mode():
            difference = (exact(images) - fused(images)).abs().max().item()
            compiled = torch.compile(fused)
            runs = {
                "ours aoti fp32": exact,
                "ours aoti bf16": quick,
                "timm fp32": fused,
                "timm compiled fp32": compiled,
            }
            rates = {key: forward_rate(run, images, device) for key, run in runs.items()}
            with low:
                rates |= {"timm bf16": forward_rate(fused, images, device)}
                rates |= {"timm compiled bf16": forward_rate(compiled, images, device)}
        facts["img_s"].append({"batch": batch, "max_difference": difference} | rates)
    return facts


def exported(model: nn.Module, images: torch.Tensor, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as `vitcli export --to aoti --input normalized` writes it, loaded again."""
    form = open_format("aoti", to="export")
    network = Deployed(for_runtime(model), dtype=DTYPES.get(precision, torch.float32)).eval().to(images.device)
    with tempfile.TemporaryDirectory() as folder:
        order = Order(network, images, Path(folder), precision, "logits", batch=len(images), device=images.device.type)
        form.export(order)
        return torch._inductor.aoti_load_package(str(Path(folder) / form.FILE))


def forward_rate(run: Callable[[torch.Tensor], object], images: torch.Tensor, device: torch.device) -> float:
    """Images per second of the forward pass, after it was run a few times."""
    for _ in range(5):
        run(images)
    wait(device)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < 1 or calls < 3:
        run(images)
        calls += 1
        wait(device)
    return round(calls * len(images) / (time.perf_counter() - start), 1)


def by_turns(
    models: list[nn.Module],
    options: argparse.Namespace,
    device: torch.device,
    px: int,
    compiled: bool,
    channels_last: bool,
) -> list[float]:
    """Median images per second of each model's training step."""
    steps = [build_step(model, options, device, px, compiled, channels_last) for model in models]
    for step in steps:
        for _ in range(5):
            step()
    rates = [[rate(step, options.batch_size, device) for step in steps] for _ in range(options.rounds)]
    return [round(statistics.median(column), 1) for column in zip(*rates, strict=True)]


def build_step(
    model: nn.Module, options: argparse.Namespace, device: torch.device, px: int, compiled: bool, channels_last: bool
) -> Callable[[], None]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout).train()
    images = torch.randn(options.batch_size, 3, px, px, device=device)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(1000, (options.batch_size,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(forward(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def rate(step: Callable[[], None], batch_size: int, device: torch.device, steps: int = 10) -> float:
    """Images per second over `steps` steps."""
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return steps * batch_size / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
