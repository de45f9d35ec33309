"""Every Triton kernel compiles for GPUs that are not here, and none spills registers but for named exceptions."""

from pathlib import Path

import pytest
import torch

from vitcli.models.fastvit import VARIANTS

pytest.importorskip("triton")

from tests.layers.gpu.compiled import key, launches_of_a_step, resources

#: a multiprocessor has room for three programs of 128 threads up to 168 registers, and for two up to 255; in bfloat16
#: Triton 3.8 needs at most 185, Triton 3.6, which belongs to torch 2.11, 219
MOST_REGISTERS = 224
#: (capability, data type) -> more registers than that, in the weight gradient of a 7 x 7 kernel
REGISTERS = {(90, torch.float16): 255, (90, torch.float32): 255}
#: bytes of a thread that one kernel keeps in memory: the compiler does that so that one more program fits
SPILLED = {(80, torch.bfloat16): 8, (80, torch.float16): 8, (90, torch.float16): 48}


def distinct(*names: str, dtype: torch.dtype = torch.bfloat16) -> list:
    found = {key(launch): launch for name in names for launch in launches_of_a_step(name, dtype, batch=8, px=64)}
    return list(found.values())


def test_kernels_of_a_step():
    """One forward and two backward for each convolution, and five for each norm or sum of norms of one map."""
    launches = launches_of_a_step("fastvit_t8", torch.bfloat16)
    count = [launch.kernel.__name__ for launch in launches].count
    num_convs = 1 + 1 + 10 + 10 + 3 * 2 + 2  # of the stem 3 x 3 and 1 x 1, of ten blocks, of three halvings, the last
    assert [count(name) for name in ("convolve", "backward_input", "backward_weight")] == [num_convs] * 3
    num_sums = 3 + 2 * 10 + 2 * 3 + 1
    assert [count(name) for name in ("sum_up", "sums", "backward_maps")] == [num_sums] * 3
    num_maps = num_sums + 3 + 10 + 2 * 3 + 1
    assert [count(name) for name in ("moments", "slope_and_shift", "gradients_of_channels")] == [num_maps] * 3


def assert_fits(launches: list, capability: int, dtype: torch.dtype, folder: Path) -> None:
    spilling = []
    for launch in launches:
        used = resources(launch, capability, folder)
        assert used["REG"] <= REGISTERS.get((capability, dtype), MOST_REGISTERS), (key(launch), used)
        if used["STACK"]:
            spilling.append((used["STACK"], key(launch)))
    assert len(spilling) <= ((capability, dtype) in SPILLED), spilling
    assert all(size <= SPILLED[capability, dtype] for size, _ in spilling), spilling


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolve", "backward_input", "sum_up", "slope_and_shift", "sums"])
def test_a_configuration_of_each_kernel(name: str, tmp_path: Path):
    launches = [launch for launch in distinct("fastvit_t8") if launch.kernel.__name__ == name]
    assert_fits(launches[:1], 90, torch.bfloat16, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_all_configurations_of_all_variants(dtype: torch.dtype, capability: int, tmp_path: Path):
    assert_fits(distinct(*VARIANTS, dtype=dtype), capability, dtype, tmp_path)
