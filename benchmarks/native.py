"""The C++ program without a framework next to other runtimes: milliseconds of one image by turns, start-up and size.

    cmake -S deploy/cpp -B build -DRUNTIME=native && cmake --build build
    for p in fp32 bf16 int8_dynamic; do vitcli export RUN --to native --precision $p -o native-$p; done
    for p in fp32 bf16; do vitcli export RUN --to openvino --precision $p -o openvino-$p; done
    python benchmarks/native.py build/benchmark photo.jpg native-* openvino-* torch:RUN --threads 1 --rounds 30

An item is an exported folder, or `torch:` with a run, a file of weights or the name of a model: this network in
PyTorch, folded, in float32. Each item is a process of its own; in each round every one of them runs a few times, in
random order. Folders of the format native are run by `build/benchmark`, or, as `mojo:FOLDER`, by the program that
`--mojo` names (`mojo build deploy/mojo/benchmark.mojo`); the others by Python and their own runtime.

Columns: the speed is relative to the last item. start: seconds from the start of the process to its first answer, the
best of `--starts`; in Python this contains the imports. network: the exported folder, or the weights. runtime: the
program, or the folder of the Python package.
"""

import argparse
import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from vitcli.deploy.artifact import is_artifact, open_artifact, size_bytes
from vitcli.deploy.measure import Worker
from vitcli.deploy.measure_worker import PAUSE_SECONDS, Candidate
from vitcli.networks.provenance import machine, versions

CALLS = 3  #: of each item in a round


class Item(Protocol):
    """A network in a process of its own, which has given its first answer."""

    network_bytes: int
    runtime_bytes: int

    def run(self) -> list[float]:
        """Milliseconds of `CALLS` calls; one before them is not counted."""
        ...

    def stop(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="build/benchmark")
    parser.add_argument("photo", type=Path)
    parser.add_argument("items", nargs="+", help="an exported folder, mojo:FOLDER, or torch:NETWORK")
    parser.add_argument("--mojo", type=Path, help="the program benchmark of deploy/mojo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    packages = versions("torch", "onnxruntime", "openvino")
    print(f"{machine()}, {options.threads} threads; {', '.join(f'{k} {v}' for k, v in packages.items())}")
    starts = {name: min(start_seconds(name, options) for _ in range(options.starts)) for name in options.items}
    items = {name: opened(name, options) for name in options.items}
    times: dict[str, list[float]] = {name: [] for name in items}
    for _ in range(options.rounds):
        for name in random.sample(list(items), len(items)):
            times[name] += items[name].run()
    print("| item | best ms | median ms | speed | start s | network MB | runtime MB |\n|---|---|---|---|---|---|---|")
    last = min(times[options.items[-1]])
    for name, found in times.items():
        speed = f"{min(found):.2f} | {np.median(found):.2f} | {last / min(found):.2f} | {starts[name]:.2f}"
        print(f"| {name} | {speed} | {items[name].network_bytes / 1e6:.1f} | {items[name].runtime_bytes / 1e6:.1f} |")
        items[name].stop()


def start_seconds(name: str, options: argparse.Namespace) -> float:
    start = time.perf_counter()
    item = opened(name, options)
    seconds = time.perf_counter() - start
    item.stop()
    return seconds


def opened(name: str, options: argparse.Namespace) -> Item:
    if name.startswith("mojo:"):
        return in_mojo(name.removeprefix("mojo:"), options)
    if is_artifact(name) and open_artifact(name).format == "native":
        return InProgram(options.program, name, options.photo, options.threads)
    return InPython(name.removeprefix("torch:"), options)


def in_mojo(folder: str, options: argparse.Namespace) -> "InProgram":
    """Mojo's program, which gets the pixels that the network sees."""
    if options.mojo is None:
        sys.exit("mojo:FOLDER needs --mojo PROGRAM")
    with TemporaryDirectory() as temporary:
        seen = Path(temporary) / "seen.pam"
        with seen.open("wb") as stream:
            subprocess.run([options.program.parent / "pixels", folder, options.photo], stdout=stream, check=True)
        return InProgram(options.mojo, folder, seen, options.threads)


class InProgram:
    """Runs a native folder once for each line that it gets."""

    def __init__(self, program: Path, folder: str, image: Path, threads: int) -> None:
        command = [program, folder, image, "--threads", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._once()
        self.network_bytes = size_bytes(Path(folder))
        self.runtime_bytes = program.stat().st_size

    def run(self) -> list[float]:
        time.sleep(PAUSE_SECONDS)
        self._once()
        return [self._once() for _ in range(CALLS)]

    def stop(self) -> None:
        self._process.communicate()

    def _once(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return float(answer) if answer else sys.exit(f"{self._process.args} gives no answer")


class InPython:
    """Everything else, as `vitcli bench infer` measures it."""

    def __init__(self, item: str, options: argparse.Namespace) -> None:
        self._worker = Worker(Candidate(item, batch=1, threads=options.threads))
        self._worker.listen()
        facts = self._worker.facts
        if not self._worker.works:
            sys.exit(f"{item}: {facts['why_not']}")
        self.network_bytes = facts["size_bytes"]
        self.runtime_bytes = sum(package_bytes(name) for name in facts["packages"])

    def run(self) -> list[float]:
        self._worker.run(seconds=0)  # at least three calls, `CALLS`
        return self._worker.times_ms[-1]

    def stop(self) -> None:
        self._worker.stop()


def package_bytes(name: str) -> int:
    """The size of the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return sum(path.stat().st_size for path in Path(spec.origin).parent.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
