"""Memory of parameters, gradients and moments on each rank: torchrun --nproc_per_node N benchmarks/memory_per_rank.py

One step of AdamW with the moving average on a CPU, under `parallel: ddp` and `fsdp`; counts the bytes of the tensors
that a rank keeps between two steps, and of the gradients before the update.
"""

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vitcli.distributed import World, joined
from vitcli.models.registry import create_model
from vitcli.parallel.replicas import Replicas
from vitcli.parallel.sharded import Shards
from vitcli.parallel.shards import own_part


def kept_bytes(tensors: list[Tensor]) -> int:
    return sum(own_part(tensor).nbytes for tensor in tensors)


def measure(name: str, way: str, world: World) -> dict[str, int]:
    """Bytes on this rank."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=1000)
    average = create_model(name, num_classes=1000).requires_grad_(False)
    if way == "ddp":
        spread: Replicas | Shards = Replicas(network, world.size, world.device, compile=False)
    else:
        spread = Shards(network, average, world.size, world.device, compile=False)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = torch.randn(1, 3, *((network.img_size,) * 2 if isinstance(network.img_size, int) else network.img_size))
    nn.functional.cross_entropy(spread.module(images), torch.zeros(1, dtype=torch.long)).backward()
    gradients = kept_bytes([p.grad for p in network.parameters() if p.grad is not None])
    optimizer.step()
    moments = kept_bytes([value for state in optimizer.state.values() for value in state.values()])
    return {
        "parameters": kept_bytes([*network.parameters()]),
        "average": kept_bytes([*average.parameters()]),
        "gradients": gradients,
        "moments": moments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_b_patch16")
    name = parser.parse_args().model
    with joined("cpu", distributed=True) as world:
        for way in ("ddp", "fsdp"):
            own = measure(name, way, world)
            ranks: list[dict[str, int]] = [{}] * world.size
            dist.all_gather_object(ranks, own)
            if world.is_main:
                most = {part: max(rank[part] for rank in ranks) / 2**20 for part in own}
                parts = ", ".join(f"{part} {mib:,.0f}" for part, mib in most.items())
                print(f"{name}, {world.size} ranks, {way}: {sum(most.values()):,.0f} MiB ({parts})", flush=True)


if __name__ == "__main__":
    main()
