"""The C++ program without a framework next to other runtimes: milliseconds of one image, by turns.

    cmake -S deploy/cpp -B build -DRUNTIME=native && cmake --build build
    for p in fp32 bf16; do vitcli export RUN --to native --precision $p -o native-$p; done
    vitcli export RUN --to openvino -o openvino-fp32
    python benchmarks/native.py build/benchmark photo.jpg native-fp32 openvino-fp32 --threads 1 --rounds 30

Artifacts of the format native are run by `build/benchmark`, others in this process by their own runtime. Each round
calls every one a few times, in random order. The last column is the speed relative to the last artifact.
"""

import argparse
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import Artifact, open_artifact
from vitcli.deploy.classify import normalize, open_session
from vitcli.networks.provenance import machine, versions

CALLS = 3  #: of each artifact in a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="build/benchmark")
    parser.add_argument("photo", type=Path)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    packages = versions("torch", "onnxruntime", "openvino")
    print(f"{machine()}, {options.threads} threads; {', '.join(f'{k} {v}' for k, v in packages.items())}")
    runs = {folder.name: timed(open_artifact(folder), options) for folder in options.artifacts}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name in random.sample(list(runs), len(runs)):
            times[name] += [runs[name]() for _ in range(CALLS)]
    print("| artifact | best ms | median ms | speed |\n|---|---|---|---|")
    last = min(times[options.artifacts[-1].name])
    for name, found in times.items():
        print(f"| {name} | {min(found):.2f} | {np.median(found):.2f} | {last / min(found):.2f} |")


def timed(artifact: Artifact, options: argparse.Namespace) -> Callable[[], float]:
    """A function that runs the network once and returns the milliseconds."""
    if artifact.format == "native":
        return in_program([options.program, artifact.folder, options.photo, "--threads", str(options.threads)])
    session = open_session(artifact, threads=options.threads)
    seen = build_eval_transform(artifact.preprocessing, in_channels=artifact.in_channels)(Image.open(options.photo))
    pixels = np.asarray(seen)[None]
    images = pixels if artifact.takes_pixels else normalize(pixels, artifact.preprocessing)
    images = images.repeat(artifact.batch or 1, axis=0)

    def run() -> float:
        start = time.perf_counter()
        session(images)
        return 1000 * (time.perf_counter() - start)

    return run


def in_program(command: list) -> Callable[[], float]:
    """The same, by a process that runs the network once for each line that it gets."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    ask, answers = process.stdin, process.stdout

    def run() -> float:
        ask.write("\n")
        ask.flush()
        return float(answers.readline())

    return run


if __name__ == "__main__":
    main()
