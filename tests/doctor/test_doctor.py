"""What `vitcli doctor` says of sound and of broken machines."""

import json
import resource
from pathlib import Path

import pytest

from vitcli.commands import doctor as command
from vitcli.doctor import packages
from vitcli.doctor.devices import devices_in_words
from vitcli.doctor.finding import Finding
from vitcli.doctor.machine import cpu_quota, find_machine, limits, settings, shared_memory
from vitcli.doctor.traps import traps
from vitcli.errors import UsageError

CPU = {
    "torch": "2.14.1", "built_for": None, "threads": 2, "cpu": "AVX2", "architectures": [], "mps": False, "nccl": True,
    "gpus": [], "free_bytes": [],
}  # fmt: skip
H100 = {"name": "H100", "bytes": 80 * 2**30, "capability": [9, 0]}


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


def install(site: Path, name: str, version: str, *requirements: str) -> None:
    """A distribution without any code."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requirements)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_versions_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "torchcodec", "0.1.0", "torch (==2.3.0)", "numpy<1; extra == 'old'")
    monkeypatch.syspath_prepend(tmp_path)
    found = list(packages._contradictions())
    assert len(found) == 1
    assert found[0].level == "problem"
    assert "torchcodec 0.1.0 needs torch ==2.3.0, not 2." in found[0].text


def test_what_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a real installation: a module that fails stands before the real one."""
    (tmp_path / "simplejpeg.py").write_text("raise ImportError('libturbojpeg.so: wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    imports = {name: packages.IMPORTS[name] for name in ("simplejpeg", "pyarrow")}
    monkeypatch.setattr(packages, "IMPORTS", imports)
    found = list(packages.find_packages())
    (problem,) = [finding for finding in found if finding.level == "problem"]
    assert problem.text.endswith("cannot be imported: ImportError: libturbojpeg.so: wrong ELF class")
    assert problem.help == "pip install --upgrade --force-reinstall simplejpeg"
    assert found[-1] == Finding("ok", "can be imported: pyarrow")


def test_an_import_that_ends_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(packages.IMPORTS, "torchcodec", "import os; os.abort()")
    assert packages._import_failure("torchcodec") == "Python ended with -6"


@pytest.mark.parametrize(
    ("facts", "has_nvidia", "level", "words"),
    [
        (CPU, False, "note", "no GPU"),
        (CPU, True, "problem", "this torch is for CPUs only"),
        (CPU | {"built_for": "13.0"}, True, "problem", "torch needs CUDA 13.0"),
        (CPU | {"built_for": "13.0", "gpus": [H100], "free_bytes": [70 * 2**30]}, True, "ok", "H100, 80 GiB, 70 free"),
        (CPU | {"built_for": "13.0", "gpus": [H100], "free_bytes": [2**30]}, True, "note", "others use most"),
        (
            CPU | {"built_for": "13.0", "gpus": [H100 | {"capability": [6, 1]}], "free_bytes": [79 * 2**30],
                   "architectures": ["sm_75", "sm_90"]},
            True, "problem", "no code for it",
        ),
        (CPU | {"gpus": [H100, H100], "free_bytes": [79 * 2**30] * 2, "nccl": False}, True, "problem", "no NCCL"),
    ],
)  # fmt: skip
def test_devices(facts: dict, has_nvidia: bool, level: str, words: str):
    last = list(devices_in_words(facts, has_nvidia=has_nvidia))[-1]
    assert last.level == level
    assert words in last.text


def test_a_container_with_few_cores(tmp_path: Path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert cpu_quota(tmp_path) == 0.5
    cores, memory, *_ = find_machine(tmp_path, cgroup=tmp_path)
    assert cores.level == "note"
    assert "--num_parallel_workers 1" in (cores.help or "")
    assert "the container may use 1.0 GiB" in memory.text
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None


def test_limits():
    assert levels(limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)) == ["ok"]
    assert levels(limits(256, resource.RLIM_INFINITY)) == ["note"]
    assert levels(limits(4096, 2**20)) == ["ok", "problem"]
    assert shared_memory(64 * 2**20).level == "note"
    assert shared_memory(8 * 2**30).level == "ok"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, []),
        ({"OMP_NUM_THREADS": "4"}, []),
        ({"OMP_NUM_THREADS": "8"}, ["there are 4 cores"]),
        ({"OMP_NUM_THREADS": "1"}, ["uses 1 of 4 cores"]),
        ({"OMP_NUM_THREADS": "1", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}, []),
        ({"WORLD_SIZE": "4"}, ["one of 4"]),
        ({"CUDA_LAUNCH_BLOCKING": "1", "CUDA_VISIBLE_DEVICES": ""}, ["slow", "no GPU is used"]),
    ],
)
def test_settings(environment: dict[str, str], words: list[str]):
    found = list(settings(environment, cores=4))
    assert len(found) == len(words)
    assert all(word in finding.text for word, finding in zip(words, found))


def test_traps(tmp_path: Path):
    assert not list(traps("2.14.1+cpu", "6.1.0", tmp_path))
    assert "channels_last" in next(traps("2.15.0", "6.1.0", tmp_path)).text
    assert "WSL" in next(traps("2.14.1", "5.15-microsoft-standard-WSL2", Path("/mnt/c/runs"))).text


def test_extras_are_those_of_the_project():
    texts = [finding.text.partition(":")[0] for finding in packages.find_extras()]
    assert "onnx" in texts
    assert "dev" not in texts


def test_the_exit_code_follows_from_the_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for name in ("find_packages", "find_devices", "find_extras"):
        monkeypatch.setattr(command, name, lambda: iter(()))
    monkeypatch.setattr(command, "find_traps", lambda folder: iter([Finding("note", "a \x1b[31mred\x1b[0m note")]))
    monkeypatch.setattr(command, "find_machine", lambda folder: iter([Finding("ok", "fine")]))
    command.doctor(tmp_path)
    said = capsys.readouterr().out
    assert said.endswith("no problem was found; one note\n")
    assert "\x1b[31m" not in said
    monkeypatch.setattr(command, "find_machine", lambda folder: iter([Finding("problem", "bad", "mend it")] * 2))
    with pytest.raises(UsageError, match="2 problems were found"):
        command.doctor(tmp_path, json_file=tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["machine"][1]["help"] == "mend it"
