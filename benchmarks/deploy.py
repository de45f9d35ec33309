"""Latency and throughput of exported networks, compared with timm's in eager mode and through the same runtimes.

    python benchmarks/deploy.py --models fastvit_t8 fastvit_sa12 vit_s_patch16 --batches 1 16 --threads 2

Both networks have the same weights. timm's is reparameterized where possible and runs in eager mode or through the
same exporter, runtime, precision and calibration images as vitcli's (its int8 with the quantizer's defaults); vitcli's
is what `vitcli export` writes with --input normalized. All candidates of a row get the same float32 images and take
turns in one process.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from timm.utils.model import reparameterize_model
from torch import nn

from vitcli.deploy.formats import Order, Setting, open_format
from vitcli.deploy.network import DTYPES, Deployed, for_runtime
from vitcli.deploy.quantize import always_float
from vitcli.deploy.timing import by_turns
from vitcli.models.registry import create_model, model_info
from vitcli.networks.build import float_layers
from vitcli.networks.provenance import machine, versions

TIMM = {"vit_s_patch16": "vit_small_patch16_224"}
CANDIDATES = ("onnx:fp32", "onnx:int8", "openvino:fp32", "openvino:bf16", "openvino:int8", "aoti:fp32", "aoti:bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["fastvit_t8", "fastvit_sa12", "vit_s_patch16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), metavar="FORMAT:PRECISION")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each candidate in each round")
    parser.add_argument("--images", type=Path, help="folder of photographs for int8's ranges; noise without it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packages = versions("torch", "timm", "onnxruntime", "openvino", "nncf")
    print(f"{machine()}, {options.threads} threads; {', '.join(f'{k} {v}' for k, v in packages.items())}")
    for name in options.models:
        with TemporaryDirectory() as folder:
            compare(name, options, Path(folder))


def compare(name: str, options: argparse.Namespace, folder: Path) -> None:
    """One table: every candidate of ours, timm's through the same runtime, and timm's in eager mode."""
    size = model_info(name).img_size
    theirs, ours = networks(name, size)
    calibration = calibration_images(options.images, size)
    for batch in options.batches:
        images = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
        runs = {"timm eager": eager(theirs, images)}
        for candidate in options.candidates:
            for whose, network in (("timm", theirs), ("ours", ours)):
                made = folder / f"{whose}-{candidate.replace(':', '-')}-{batch}"
                runs[f"{whose} {candidate}"] = exported(network, candidate, batch, calibration, made, options, images)
        times = by_turns(runs, rounds=options.rounds, seconds=options.seconds)
        table(f"{name}, {size} px, batch {batch}", times, batch)


def networks(name: str, size: int) -> tuple[nn.Module, nn.Module]:
    """timm's, reparameterized where it can be, and ours as it is exported; of the same weights."""
    torch.manual_seed(0)
    px = {"img_size": size} if name.startswith("vit_") else {}
    theirs, ours = timm.create_model(TIMM.get(name, name), **px), create_model(name, **px)
    ours.load_state_dict(theirs.state_dict())
    return reparameterize_model(theirs.eval()), for_runtime(ours)


def calibration_images(folder: Path | None, size: int) -> torch.Tensor:
    """(32, 3, size, size) normalized."""
    if folder is None:
        return torch.randn(32, 3, size, size)
    from PIL import Image

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    chosen = files[:: max(len(files) // 32, 1)][:32]
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in chosen]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def eager(model: nn.Module, images: np.ndarray) -> Callable[[], object]:
    batch = torch.from_numpy(images)

    def run() -> object:
        with torch.inference_mode():
            return model(batch)

    return run


def exported(
    network: nn.Module,
    candidate: str,
    batch: int,
    calibration: torch.Tensor,
    folder: Path,
    options: argparse.Namespace,
    images: np.ndarray,
) -> Callable[[], object]:
    """`network` through the exporter and runtime of `candidate`, for this batch size."""
    format_name, precision = candidate.split(":")
    form = open_format(format_name, to="export")
    folder.mkdir()
    dtype = DTYPES[precision] if precision in form.CASTS else torch.float32
    deployed = Deployed(deepcopy(network), dtype=dtype).eval()
    ours = folder.name.startswith("ours")
    order = Order(
        network=deployed,
        example=torch.from_numpy(images),
        folder=folder,
        precision=precision,
        output="logits",
        batch=batch,
        calibration=list(calibration.split(batch)[: len(calibration) // batch]) if precision == "int8" else [],
        keep_float=always_float(deployed, float_layers(network)) if ours else (),
    )
    start = time.perf_counter()
    form.export(order)
    session = form.open_session(folder / form.FILE, Setting(precision, threads=options.threads))
    print(f"  {folder.name}: exported and loaded in {time.perf_counter() - start:.0f} s", flush=True)
    return lambda: session(images)


def table(title: str, times: dict[str, np.ndarray], batch: int) -> None:
    heads = "network", "p50 ms", "p95 ms", "img/s", "x timm eager", "x timm, same runtime"
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    base = np.median(times["timm eager"])
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        same = times.get("timm " + name.removeprefix("ours "), values)
        against = f"{np.median(same) / p50:.2f}" if name.startswith("ours") else ""
        row = name, f"{p50:.2f}", f"{p95:.2f}", f"{1000 * batch / p50:.1f}", f"{base / p50:.2f}", against
        print(f"| {' | '.join(row)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
