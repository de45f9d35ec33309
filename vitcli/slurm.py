"""SLURM's variables as the ones that torchrun sets, so that the tasks of `srun vitcli train …` are ranks of one run."""

import re
from collections.abc import Mapping

#: below Linux's ephemeral ports, so that no connection of another program has it by chance
_PORTS = range(12_000, 32_000)
#: srun sets them, and a batch script, which is no task but has SLURM_PROCID=0, has none of them
_OF_A_STEP = ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS", "SLURM_LAUNCH_NODE_IPADDR")


def torchrun_variables(env: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT of a task among several; else none.

    torchrun's own variables have priority: each task of `srun torchrun …` is a launcher. Rank 0 runs on the first node
    of the step. SLURM_LAUNCH_NODE_IPADDR is not its address: it is where srun was typed, perhaps a login node.
    """
    rank, size = int(env.get("SLURM_PROCID", "0")), _number_of_tasks(env)
    if "WORLD_SIZE" in env or "SLURM_PROCID" not in env or size == 1 or not (rank or _is_task(env)):
        return {}
    node = int(env.get("SLURM_NODEID", "0"))
    tasks = tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE") or str(size))
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST")
    step = int(env.get("SLURM_STEP_ID", "0"))  # two steps of a job may run at the same time
    port = _PORTS[(int(env.get("SLURM_JOB_ID", "0")) + 101 * step) % len(_PORTS)]
    values = {
        "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": env.get("SLURM_LOCALID", rank if len(tasks) == 1 else 0),
        "LOCAL_WORLD_SIZE": tasks[node], "MASTER_ADDR": first_node(nodes or "localhost"), "MASTER_PORT": port,
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


def num_unused_tasks(env: Mapping[str, str]) -> int:
    """The tasks of a batch job whose script runs this process without srun, so that they would do nothing; else 0."""
    alone = "WORLD_SIZE" not in env and "SLURM_PROCID" in env and not _is_task(env)
    return _number_of_tasks(env) if alone and _number_of_tasks(env) > 1 else 0


def tasks_per_node(text: str) -> list[int]:
    """SLURM's "2(x3),1" is [2, 2, 2, 1]."""
    counts: list[int] = []
    for tasks, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(tasks)] * int(repeats or 1)
    return counts


def first_node(text: str) -> str:
    """SLURM's "gpu[07-09,11],login" begins with gpu07."""
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", text)[0])


def _is_task(env: Mapping[str, str]) -> bool:
    return any(name in env for name in _OF_A_STEP)


def _number_of_tasks(env: Mapping[str, str]) -> int:
    return int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or "1")
