"""The commands at the top of docs/deployment.md, from training to C++, run unchanged but with little data."""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import ROOT, environment

#: what is added to each command so that it takes seconds: little data, few steps
IN_SMALL = {
    "vitcli train": " --image_resize 32 --batch_size 8 --epoch_size 2 --warmup_epochs 0 --num_parallel_workers 0",
    "vitcli export": " --accept",  # with twelve images, one may well change
    "vitcli validate": " --num_parallel_workers 0",
    "vitcli bench": " --rounds 1 --seconds 0.05 --threads 1",
}


def documented() -> list[str]:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(.*?)```", page, re.DOTALL)
    assert block
    return block[1].strip().splitlines()


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++") and importlib.util.find_spec("openvino")),
    reason="cmake, a C++ compiler and openvino needed",
)
def test_from_training_to_cpp(image_folder: Path, tmp_path: Path, build):
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "build").symlink_to(build("openvino"))  # by the same commands: cmake finds everything up to date
    (tmp_path / "photos").mkdir()
    ramp = np.linspace(0, 255, 50 * 70 * 3).reshape(50, 70, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photos" / "photo.png")
    shutil.copy(tmp_path / "photos" / "photo.png", tmp_path / "photo.jpg")  # recognized by its content
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = {}
    commands = documented()
    for command in commands:
        start = " ".join(command.split()[:2])
        words = command.replace("CIFAR10", str(image_folder)) + IN_SMALL.get(start, "")
        done = subprocess.run(
            ["bash", "-c", words], cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
    assert [command.split()[0] for command in commands] == ["vitcli"] * 5 + ["cmake", "build/classify"]

    with (tmp_path / "answers.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    in_cpp = [line.split("  ") for line in said[commands[-1]].splitlines()]
    assert [name for _, name in in_cpp] == [row["class"] for row in answers]
    for (share, _), row in zip(in_cpp, answers, strict=True):
        assert abs(float(share) - float(row["probability"])) < 2e-4
    assert "12" in said[commands[2]]
    assert "openvino" in said[commands[4]]
