"""What PyTorch can compute on here, asked in a process of its own: a broken driver may end it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitcli.doctor.finding import Finding

_ASK = """
import json, torch
cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "torch": torch.__version__, "built_for": torch.version.cuda or torch.version.hip,
    "threads": torch.get_num_threads(),
    "cpu": torch.backends.cpu.get_cpu_capability(), "architectures": torch.cuda.get_arch_list() if cuda else [],
    "mps": torch.backends.mps.is_available(), "nccl": torch.distributed.is_nccl_available(),
    "gpus": [{"name": g.name, "bytes": g.total_memory, "capability": [g.major, g.minor]} for g in gpus],
    "free_bytes": [torch.cuda.mem_get_info(i)[0] for i in range(len(gpus))],
}))
"""
_TIMEOUT_SECONDS = 120


def find_devices() -> Iterator[Finding]:
    """The CPU, every GPU, and why a GPU that the machine has cannot be used."""
    command = [sys.executable, "-W", "ignore", "-c", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        text = f"PyTorch did not list the devices within {_TIMEOUT_SECONDS} seconds"
        yield Finding("problem", text, "look at the output of nvidia-smi; a GPU may need a restart")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"Python ended with {done.returncode}"])[-1]
        yield Finding("problem", f"PyTorch cannot list the devices: {last}", "install torch again")
        return
    has_nvidia = any(Path("/dev").glob("nvidia[0-9]*"))
    yield from devices_in_words(json.loads(done.stdout.strip().splitlines()[-1]), has_nvidia=has_nvidia)


def devices_in_words(facts: dict[str, Any], *, has_nvidia: bool) -> Iterator[Finding]:
    """`facts`: what `_ASK` printed; `has_nvidia`: whether the system has devices of NVIDIA's driver."""
    build = f"CUDA or ROCm {facts['built_for']}" if facts["built_for"] else "CPUs only"
    yield Finding("ok", f"torch {facts['torch']}, built for {build}; {facts['cpu']}, {facts['threads']} threads")
    for number, (gpu, free) in enumerate(zip(facts["gpus"], facts["free_bytes"], strict=True)):
        yield _gpu(number, gpu, free, facts["architectures"])
    if facts["mps"]:
        yield Finding("ok", "mps: Apple's GPU")
    if has_nvidia and not facts["gpus"]:
        if facts["built_for"]:
            help = "update the driver (nvidia-smi shows what it supports), or install a torch for an older CUDA"
            yield Finding("problem", f"the NVIDIA GPU cannot be used: torch needs CUDA {facts['built_for']}", help)
        else:
            help = "install a torch with CUDA: see the selector on pytorch.org"
            yield Finding("problem", "the machine has an NVIDIA GPU, and this torch is for CPUs only", help)
    elif not facts["gpus"] and not facts["mps"]:
        yield Finding("note", "no GPU: training runs on the CPU")
    if len(facts["gpus"]) > 1 and not facts["nccl"]:
        yield Finding(
            "problem", "several GPUs, and this torch has no NCCL", "install torch from its publisher's wheels"
        )


def _gpu(number: int, gpu: dict[str, Any], free_bytes: int, architectures: list[str]) -> Finding:
    major, minor = gpu["capability"]
    memory = f"{gpu['bytes'] / 2**30:.0f} GiB, {free_bytes / 2**30:.0f} free"
    text = f"cuda:{number}  {gpu['name']}, {memory}, sm_{major}{minor}"
    known = [int("".join(filter(str.isdigit, name.partition("_")[2]))) for name in architectures if "_" in name]
    if known and 10 * major + minor < min(known):
        return Finding("problem", f"{text}: this torch has no code for it", "install a torch for an older CUDA")
    if 2 * free_bytes < gpu["bytes"]:
        return Finding("note", f"{text}: others use most of its memory", "choose another with CUDA_VISIBLE_DEVICES")
    if major < 8:
        return Finding("note", f"{text}: no bf16", "use --amp fp16")
    return Finding("ok", text)
