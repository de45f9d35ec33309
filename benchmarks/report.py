"""How long a report takes beyond its evaluation, and how large it is: 10,000 images of 1,000 classes that are made up.

python benchmarks/report.py --images 10000 --classes 1000 -o /tmp/report.html
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from vitcli import create_model
from vitcli.data.source import ArrayImages
from vitcli.distributed import World
from vitcli.evaluators.answers import ImageAnswers
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.recipe.load import load_recipe
from vitcli.recipe.write import recipe_text
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.one_run import report_of_one
from vitcli.report.run_record import RunRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--log_lines", type=int, default=100_000)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", options.log_lines)
        evaluation = made_up(options.images, options.classes)
        start, cpu_start = time.perf_counter(), time.process_time()
        text = report_of_one(RunRecord(run), evaluation, World(0, 1, 0, 1, torch.device("cpu")))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    size = len(text.encode())
    print(f"{options.images:,} images, {options.classes:,} classes, {options.log_lines:,} lines of the log")
    print(f"{seconds:.1f} s ({cpu_seconds:.1f} s of CPU time), {size / 1e6:.2f} MB, {text.count('<img ')} pictures")
    if options.output:
        options.output.write_text(text, encoding="utf-8")


def write_run(path: Path, num_lines: int) -> Path:
    """The folder of a run with a long log."""
    path.mkdir()
    (path / "recipe.yaml").write_text(recipe_text(load_recipe("fastvit_t8")))
    lines = [
        {
            "kind": "train",
            "step": step,
            "epoch": step / 100,
            "loss": 7 * 0.9999**step,
            "lr": 1e-3,
            "images_per_second": 9,
        }
        for step in range(1, num_lines + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def made_up(num_images: int, num_classes: int) -> EvaluatedNetwork:
    """Random answers, to images of 500 x 400 pixels, of a FastViT with random weights, which makes the heat maps."""
    generator = np.random.default_rng(0)
    names = [f"n{number:08} <class & {number}>" for number in range(num_classes)]
    targets = np.arange(num_images, dtype=np.int64) % num_classes
    logits = generator.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), targets] += generator.normal(4, 2, num_images).astype(np.float32)
    answers = ImageAnswers([f"val/{number:08}.JPEG" for number in range(num_images)], names, targets, logits)
    one = generator.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    images = ArrayImages(np.broadcast_to(one, (num_images, *one.shape)), targets, names, "noise")
    model = create_model("fastvit_t8", num_classes=num_classes).eval()
    use_cpu_kernels(model)
    recipe = load_recipe("fastvit_t8")
    return EvaluatedNetwork(recipe, model, "made up", names, images, answers)


if __name__ == "__main__":
    main()
