"""Top-1 of the programs that run native folders, next to PyTorch's, in every precision.

    cmake -S deploy/cpp -B build -DRUNTIME=native && cmake --build build
    python benchmarks/native_accuracy.py RUN IMAGES --mojo mojo_classify --out folders

IMAGES is a folder of class folders. RUN is exported below `--out` in each precision, unless it is there already; int8
gets its ranges from the training images of the run, or of `--data-dir`. The C++ programs and Mojo's read the exported
folders and decode the images themselves. `other answers` counts the images to which the line's most probable class is
not that of PyTorch; `other than C++` those to which Mojo's is not that of C++ in the same precision.
"""

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vitcli.commands.export import ExportPlan, export
from vitcli.data.decode import open_image
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.bridges import ModelClassifier
from vitcli.evaluators.statistics import wilson
from vitcli.networks.opened import Opened, open_model
from vitcli.networks.provenance import machine, versions

AT_ONCE = 500  #: images for one start of a program
PRECISIONS = ("fp32", "bf16", "int8", "int8_dynamic")

Answers = np.ndarray  #: (N,) the number of the most probable class of each image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--programs", type=Path, default=Path("build"), help="folder of the C++ programs")
    parser.add_argument("--mojo", type=Path, help="the program of deploy/mojo")
    parser.add_argument("--out", type=Path, default=Path("native_accuracy"), help="folder of the exported folders")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="use every N-th image only")
    options = parser.parse_args()
    opened = open_model(options.run)
    paths = [path for path in sorted(options.images.glob("*/*")) if path.parent.name in opened.class_names]
    paths = paths[:: options.every]
    classes = np.array([opened.class_names.index(path.parent.name) for path in paths])
    print(f"{len(paths):,} images; {machine()}; torch {versions('torch')['torch']}", flush=True)
    expected = by_pytorch(opened, paths, options.threads)
    heads = "precision", "program", "top-1", "95 % interval", "other answers", "other than C++", "seconds"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    line("fp32", "PyTorch", expected, classes, expected)
    for precision in options.precisions:
        measure(precision, paths, classes, expected, options)


def measure(
    precision: str, paths: list[Path], classes: Answers, expected: Answers, options: argparse.Namespace
) -> None:
    """Print a line for each program that runs RUN in this precision."""
    folder = options.out / precision
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        export(options.run, folder, ExportPlan("native", precision=precision, data_dir=options.data_dir))
    in_cpp, seconds = timed(lambda some: by_cpp(folder, some, options), paths)
    line(precision, "C++", in_cpp, classes, expected, seconds=seconds)
    if options.mojo:
        in_mojo, seconds = timed(lambda some: by_mojo(folder, some, options), paths)
        line(precision, "Mojo", in_mojo, classes, expected, in_cpp, seconds)


def line(
    precision: str,
    program: str,
    found: Answers,
    classes: Answers,
    expected: Answers,
    in_cpp: Answers | None = None,
    seconds: float | None = None,
) -> None:
    right = int((found == classes).sum())
    low, high = (100 * bound for bound in wilson(right, len(found)))
    others = [(found != expected).sum(), "" if in_cpp is None else (found != in_cpp).sum()]
    cells = [precision, program, f"{100 * right / len(found):.2f} %", f"{low:.2f} .. {high:.2f} %", *map(str, others)]
    print(f"| {' | '.join([*cells, '' if seconds is None else f'{seconds:.0f}'])} |", flush=True)


def by_pytorch(opened: Opened, paths: list[Path], threads: int) -> Answers:
    classify = ModelClassifier(opened, threads=threads, device="cpu")
    return np.concatenate([classify([open_image(path) for path in some]).argmax(1) for some in parts(paths)])


def timed(answers: Callable[[list[Path]], Answers], paths: list[Path]) -> tuple[Answers, float]:
    """The answers to all images, and the seconds for them, with the starts of the program."""
    start = time.perf_counter()
    found = np.concatenate([answers(some) for some in parts(paths)])
    return found, time.perf_counter() - start


def parts(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), AT_ONCE):
        yield paths[start : start + AT_ONCE]


def by_cpp(folder: Path, paths: list[Path], options: argparse.Namespace) -> Answers:
    command = [options.programs / "logits", folder, *paths, "--threads", str(options.threads)]
    return most_probable(command, folder)


def by_mojo(folder: Path, paths: list[Path], options: argparse.Namespace) -> Answers:
    with TemporaryDirectory() as temporary:
        seen = Path(temporary) / "seen.pam"
        with seen.open("wb") as stream:
            subprocess.run([options.programs / "pixels", folder, *paths], stdout=stream, check=True)
        return most_probable([options.mojo, folder, seen, "--logits"], folder)


def most_probable(command: list, folder: Path) -> Answers:
    """Of a program that prints one number for each image and class."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = np.array(done.stdout.split(), float)
    return numbers.reshape(-1, len(open_artifact(folder).class_names)).argmax(1)


if __name__ == "__main__":
    main()
