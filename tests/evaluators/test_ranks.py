"""Every evaluator gives the same numbers on two processes as on one, whatever the size of their shares."""

import json
from pathlib import Path

import pytest
import torch

from tests.evaluators import measure
from vitcli.distributed import World


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path, torchrun):
    """The numbers of images are odd; of one validation image the second rank has none."""
    one = measure.measure(World(0, 1, 0, 1, torch.device("cpu")))
    done = torchrun(2, measure.__name__, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("two.0", "two.1"))
    assert first == second, "all ranks know the same numbers"
    for num_val, evaluators in one.items():
        assert evaluators.keys() == first[num_val].keys() >= {"top1", "knn", "linear_probe", "collapse"}
        for name, numbers in evaluators.items():
            for key, value in numbers.items():
                exact = "correct" in key or "num" in key
                found = first[num_val][name][key]
                assert found == (value if exact else pytest.approx(value, rel=1e-4, abs=1e-7)), (num_val, name, key)
