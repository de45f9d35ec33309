"""The tasks of `srun vitcli train` are the ranks of one run."""

import subprocess
from pathlib import Path

import pytest

from tests.support.commands import environment, options, python_m
from vitcli.slurm import first_node, num_unused_tasks, torchrun_variables

#: as SLURM 23.11 sets them for task 5 of `srun -N 3 -n 7 …`, two of whose nodes have three tasks
TASK = {
    "SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "7", "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_PROCID": "5", "SLURM_LOCALID": "2", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "3(x2),1",
    "SLURM_JOB_NODELIST": "gpu[007-009,012],login1", "SLURM_STEP_NODELIST": "gpu[007-008,012]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}  # fmt: skip


def test_a_task_of_several_nodes():
    assert torchrun_variables(TASK) == {
        "RANK": "5", "WORLD_SIZE": "7", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "gpu007", "MASTER_PORT": str(12_000 + (1234567 + 202) % 20_000),
    }  # fmt: skip
    last = TASK | {"SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "2"}
    assert torchrun_variables(last)["LOCAL_WORLD_SIZE"] == "1"


@pytest.mark.parametrize(
    "other",
    [
        {"WORLD_SIZE": "2"},  # srun torchrun …
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # a shell in an allocation: srun --pty bash
    ],
)
def test_what_is_no_task_among_several(other: dict[str, str]):
    assert torchrun_variables(TASK | other) == {}
    assert num_unused_tasks(TASK | other) == 0
    assert torchrun_variables({}) == {}


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[1-3]", "n1"),
        ("n[07,09],m", "n07"),
        ("r[1-2]-x,y", "r1-x"),
        ("n-01-[3],b", "n-01-3"),
    ],
)
def test_first_node(listed: str, first: str):
    """The expansions of `scontrol show hostnames`."""
    assert first_node(listed) == first


@pytest.mark.slow
def test_two_tasks_are_one_run(tmp_path: Path):
    keys = {"epoch_size": 1, "num_samples": 64, "batch_size": 16, "model": "fvit", "depth": 1, "image_resize": 32}
    command = python_m("vitcli", "train", "-c", "quickstart", *options(keys))
    tasks = []
    for rank in "01":
        ours = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "no-such-host"}
        job = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "77", "SLURM_TASKS_PER_NODE": "2"}
        pipe = subprocess.PIPE
        tasks.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment(**ours, **job), stdout=pipe, stderr=pipe, text=True)
        )
    (said, errors), _ = (task.communicate(timeout=120) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], errors
    assert "16 x 2 processes" in said
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_batch_script_without_srun_is_refused(vitcli):
    job = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "77"}
    said = vitcli("train", "-c", "quickstart", **job)
    assert said.returncode == 2
    assert "SLURM has 8 tasks for this job, but srun did not start this process" in said.stderr
    assert "start it with srun" in said.stderr
    dry = vitcli("train", "-c", "quickstart", "--num_samples", 64, "--dry_run", True, "--distribute", False, **job)
    assert dry.returncode == 0, dry.stderr
