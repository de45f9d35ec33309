"""What a training on 1 to 512 GPUs would take, on paper: python benchmarks/scaling.py [--loader-rate 740 …]

Arithmetic only, from the numbers below and the options; docs/scaling.md explains the columns and the assumptions.
"""

import argparse
from dataclasses import dataclass

GPUS_PER_MACHINE = 8
#: with fewer images than this per GPU, kernels are too small to fill it
SMALLEST_BATCH = 16


@dataclass(frozen=True)
class Network:
    name: str
    parameters: int
    gmacs: float  #: of one image, forward
    is_fastvit: bool
    batch: int  #: images per step with which recipes of its kind reach their accuracy
    epochs: int = 300  #: on ImageNet-1k


@dataclass(frozen=True)
class DataSet:
    name: str
    images: int
    file_bytes: float  #: mean of a JPEG file
    packed_bytes: float  #: mean in packed files with the shorter side at 256 px
    epochs_ratio: float  #: epochs relative to those on ImageNet-1k


NETWORKS = [
    Network("FastViT-T8", 4_026_232, 0.7, True, 4096),
    Network("ViT-B/16", 86_567_656, 17.6, False, 16384),
    Network("ViT-H/14", 632_045_800, 167.4, False, 32768),
]
DATA_SETS = [
    DataSet("ImageNet-1k", 1_281_167, 110e3, 31e3, 1.0),
    DataSet("ImageNet-21k", 13_151_276, 90e3, 31e3, 0.3),
]
VIT_S_GMACS = 4.6
HEAD = [
    "model", "data", "GPUs", "hours", "images per GPU", "MB sent", "network busy", "storage GB/s", "packed",
    "checkpoint s", "failures", "breaks first",
]  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    add("--fastvit-rate", type=float, default=1401, help="training images per second of FastViT-T8 on one GPU")
    add("--vit-s-rate", type=float, default=5723, help="the same of ViT-S/16; other ViTs follow by their operations")
    add("--efficiency", type=float, default=0.9, help="share of this speed that several GPUs keep")
    add("--loader-rate", type=float, default=340, help="images per second that one CPU core decodes and augments")
    add("--cores-per-gpu", type=int, default=12)
    add("--network-gbit", type=float, default=100, help="between machines, for each GPU")
    add("--disk-gbytes", type=float, default=0.5, help="that rank 0 writes of a checkpoint in a second")
    add("--gpu-hours-to-failure", type=float, default=7.9 * 1024, help="mean over all kinds of failures")
    return parser.parse_args()


def row(network: Network, data: DataSet, gpus: int, given: argparse.Namespace) -> list[str]:
    rate = given.fastvit_rate if network.is_fastvit else given.vit_s_rate * VIT_S_GMACS / network.gmacs
    compute_seconds = network.batch / (gpus * rate * (given.efficiency if gpus > 1 else 1.0))
    # ring all-reduce of float32 gradients: a rank sends 2 (n - 1) / n of them
    sent = 2 * (gpus - 1) / gpus * 4 * network.parameters
    between_machines = sent if gpus > GPUS_PER_MACHINE else 0.0
    busy = between_machines / (given.network_gbit * 1e9 / 8) / compute_seconds
    step_seconds = compute_seconds * max(1.0, busy)  # the all-reduce runs during the backward pass
    speed = network.batch / step_seconds
    hours = data.images * network.epochs * data.epochs_ratio / speed / 3600
    failures = hours * gpus / given.gpu_hours_to_failure
    cores = speed / gpus / given.loader_rate
    return [
        network.name,
        data.name,
        f"{gpus}",
        f"{hours:,.1f}",
        f"{network.batch / gpus:,.0f}",
        f"{sent / 1e6:,.0f}",
        f"{busy:.0%}",
        f"{speed * data.file_bytes / 1e9:,.2f}",
        f"{speed * data.packed_bytes / 1e9:,.2f}",
        f"{16 * network.parameters / given.disk_gbytes / 1e9:,.1f}",  # weights, average and two moments in float32
        f"{failures:,.2f}",
        first_limit(network.batch / gpus, busy, cores, given.cores_per_gpu),
    ]


def first_limit(images_per_gpu: float, busy: float, cores: float, cores_per_gpu: int) -> str:
    """What is exhausted, the worst first."""
    shares = {
        "network": busy,
        f"decoding ({cores:.0f} cores per GPU)": cores / cores_per_gpu,
        "batch": SMALLEST_BATCH / images_per_gpu,
    }
    worst = max(shares, key=lambda name: shares[name])
    return worst if shares[worst] > 1 else "-"


def main() -> None:
    given = arguments()
    rows = [row(network, data, gpus, given) for network in NETWORKS for data in DATA_SETS for gpus in given.gpus]
    for cells in [HEAD, ["---"] * len(HEAD), *rows]:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
