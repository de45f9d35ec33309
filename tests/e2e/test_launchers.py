"""What starts a run on several machines: agents of torchrun, submitit, a group that exists, the files in launchers/."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import yaml

from tests.e2e import own_group
from tests.support.commands import ROOT, environment, options
from vitcli.cli.train import read_resources
from vitcli.distributed import joined
from vitcli.errors import UsageError
from vitcli.recipe.load import load_recipe

LAUNCHERS = ROOT / "launchers"
SMALL = options(own_group.KEYS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_agents_are_two_nodes(tmp_path: Path):
    """Two of torchrun's agents on this machine meet at one endpoint, as on two machines."""
    meeting = ["--rdzv_backend", "c10d", "--rdzv_id", "run", "--rdzv_endpoint", f"localhost:{free_port()}"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *meeting]
    command = [*agent, "-m", "vitcli", "train", *SMALL, "--run_dir", "run"]
    env = environment(PYTHONPATH=str(ROOT))
    agents = [
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [agent.communicate(timeout=200) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert sum("8 x 2 processes" in out for out, _ in said) == 1
    assert json.loads((tmp_path / "run" / "status.json").read_text())["step"] == 2


@pytest.mark.slow
def test_a_process_group_that_exists_is_used_and_stays(tmp_path: Path, torchrun):
    done = torchrun(2, own_group.__name__, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 ranks") == 2
    assert "8 x 2 processes" in done.stdout


def test_a_group_without_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """NCCL alone, Ray Train's default: refused, with the backend to ask for."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "get_backend_config", lambda: "cuda:nccl")
        with pytest.raises(UsageError, match="connects cuda tensors only"), joined("cpu", distributed=True):
            pass
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_submitted_job_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On submitit's local cluster: two tasks become two ranks."""
    pytest.importorskip("submitit")
    from vitcli.commands.submit import submit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    recipe = load_recipe(None, run_dir="run", **own_group.KEYS)
    job = submit(recipe, "local", read_resources("tasks_per_node=2,timeout_min=5"))
    job.wait()
    assert job.exception() is None
    assert "8 x 2 processes" in "".join(file.read_text() for file in (tmp_path / "run" / "job").glob("*.out"))
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "done"


def test_a_run_that_is_there_is_continued_only_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """--resume RUN is not forgotten, and --run_dir RUN alone does not continue what it holds."""
    submitit = pytest.importorskip("submitit")
    from vitcli.commands.submit import submit

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    jobs = []
    monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda _, job: jobs.append(job) or SimpleNamespace(job_id=1))
    for keys in ({"resume": "run"}, {"run_dir": "run", "resume": "auto"}):
        submit(load_recipe(None, own_group.KEYS | keys), "local", {})
        section = jobs.pop().recipe.checkpoint
        assert (section.run_dir, section.resume) == (tmp_path / "run", "auto")
    with pytest.raises(UsageError, match="run holds a run already"):
        submit(load_recipe(None, **own_group.KEYS, run_dir="run"), "local", {})


def test_what_cannot_be_submitted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("submitit")
    from vitcli.commands.submit import submit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    recipe = load_recipe(None, run_dir="run", **own_group.KEYS)
    with pytest.raises(UsageError, match="there is no SLURM here"):
        submit(recipe, "slurm", {})
    with pytest.raises(UsageError, match="submitit refused the job: Parameter 'foo'"):
        submit(recipe, "local", {"foo": 3})
    assert not (tmp_path / "run").exists()


def test_what_is_asked_of_a_cluster():
    assert read_resources("nodes=2,slurm_partition=gpu") == {"nodes": 2, "slurm_partition": "gpu"}
    with pytest.raises(UsageError, match="'nodes' has no value"):
        read_resources("nodes")


@pytest.mark.parametrize(
    ("before", "now", "mapped", "expected"),
    [
        (None, 75, None, 75),
        (None, 75, "143", 143),
        (None, 3, "143", 3),
        (75, None, None, 1),  # status.json of an earlier attempt does not count
        (None, None, None, 1),
    ],
)
def test_exit_code_of_the_run(tmp_path: Path, before, now, mapped, expected: int):
    """The launcher ends with 1, the run with `now`."""
    status = tmp_path / "status.json"
    if before is not None:
        status.write_text(json.dumps({"exit_code": before}))
        os.utime(status, (1, 1))
    write = f"""printf '{{"status": "x", "exit_code": {now}, "message": ""}}' > {status}; """ if now is not None else ""
    env = os.environ | ({"INTERRUPTED_CODE": mapped} if mapped else {})
    command = ["sh", LAUNCHERS / "exit_code.sh", tmp_path, "sh", "-c", f"sleep 0.02; {write}exit 1"]
    assert subprocess.run(command, env=env, check=False).returncode == expected
    assert subprocess.run(["sh", LAUNCHERS / "exit_code.sh", tmp_path, "true"], check=False).returncode == 0


def test_scripts_and_manifests_are_well_formed():
    for script in ("slurm.sbatch", "exit_code.sh"):
        assert subprocess.run(["bash", "-n", LAUNCHERS / script], check=False).returncode == 0
    compile((LAUNCHERS / "ray_train.py").read_text(), "ray_train.py", "exec")
    job = yaml.safe_load((LAUNCHERS / "kubeflow_trainjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    trainer = job["spec"]["trainer"]
    assert trainer["numNodes"] * trainer["numProcPerNode"] == 16
    assert all(isinstance(variable["value"], str) for variable in trainer["env"])
    keys = dict(word[2:].split("=") for word in trainer["args"] if "=" in word)
    volumes = job["spec"]["podTemplateOverrides"][0]["spec"]
    mounted = {mount["mountPath"] for mount in volumes["containers"][0]["volumeMounts"]}
    assert {keys["data_dir"], str(Path(keys["run_dir"]).parent)} == mounted
    assert {mount["name"] for mount in volumes["containers"][0]["volumeMounts"]} == {
        v["name"] for v in volumes["volumes"]
    }
    load_recipe(keys.pop("config"), keys)
    sky = yaml.safe_load((LAUNCHERS / "skypilot.yaml").read_text())
    assert sky["file_mounts"].keys() == {"/runs", "/data/imagenet"}
    assert subprocess.run(["bash", "-n"], input=sky["run"], text=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["slurm.sbatch", "skypilot.yaml"])
def test_commands_in_scripts_are_valid(name: str):
    """The words after `vitcli train` are a recipe that loads."""
    command = (LAUNCHERS / name).read_text().split("-m vitcli train ")[1].split("\n")[0].replace('"$run"', "run")
    words = command.split()
    keys = {words[i].removeprefix("--"): words[i + 1] for i in range(0, len(words), 2)}
    assert load_recipe(keys.pop("-c"), keys).checkpoint.resume == "auto"


def test_torch_is_the_one_that_was_tried():
    """`--signals_to_handle` and the rendezvous options of the scripts are torchrun's."""
    from torch.distributed.run import get_args_parser

    known = {word for action in get_args_parser()._actions for word in action.option_strings}
    for name in ("slurm.sbatch", "skypilot.yaml"):
        text = (LAUNCHERS / name).read_text().split("torchrun ")[-1].split("-m vitcli")[0]
        assert {word for word in text.split() if word.startswith("--")} <= known, torch.__version__
