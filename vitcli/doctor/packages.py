"""Whether the installed packages fit each other, and can be imported."""

import importlib.metadata as metadata
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vitcli.doctor.finding import Finding

#: distribution -> a statement that uses its compiled part
IMPORTS = {
    "torch": "import torch; torch.ones(2).sum().item()",
    "torchvision": "import torch, torchvision; torch.ops.torchvision.nms",
    "torchcodec": "import torchcodec.decoders",
    "simplejpeg": "import simplejpeg",
    "safetensors": "import safetensors.torch",
    "onnxruntime": "import onnxruntime; onnxruntime.InferenceSession",
    "openvino": "import openvino; openvino.Core()",
    "executorch": "import executorch.runtime",
    "torchao": "import torchao",
    "pyarrow": "import pyarrow.parquet",
}
_TIMEOUT_SECONDS = 120


def find_packages() -> Iterator[Finding]:
    """The versions of Python and of what vitcli needs, what contradicts them, and what cannot be imported."""
    yield _python()
    needed, _ = _requirements("vitcli")
    missing = [name for name in needed if not _version(name)]
    for name in missing:
        yield Finding("problem", f"{name} is not installed", f"pip install '{needed[name]}'")
    versions = ", ".join(f"{name} {_version(name)}" for name in needed if name not in missing)
    yield Finding("ok", versions)
    yield from _contradictions()
    present = [name for name in IMPORTS if _version(name)]
    with ThreadPoolExecutor(2) as pool:
        failures = dict(zip(present, pool.map(_import_failure, present), strict=True))
    for name, failure in failures.items():
        if failure:
            yield Finding("problem", f"{name} {_version(name)} cannot be imported: {failure}", _cure(name))
    if works := [name for name, failure in failures.items() if failure is None]:
        yield Finding("ok", f"can be imported: {', '.join(works)}")


def find_extras() -> Iterator[Finding]:
    """The optional parts of vitcli, and what each lacks."""
    _, extras = _requirements("vitcli")
    for extra, names in sorted(extras.items()):
        lacking = [name for name in names if not _version(name)]
        if lacking:
            yield Finding("absent", f"{extra}: without {', '.join(lacking)}", f"pip install 'vitcli[{extra}]'")
        else:
            yield Finding("ok", f"{extra}: {', '.join(f'{name} {_version(name)}' for name in names)}")


def _python() -> Finding:
    text = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    least = re.search(r">=\s*([\d.]+)", str(metadata.metadata("vitcli")["Requires-Python"]))
    if least and sys.version_info[:2] < tuple(map(int, least[1].split(".")[:2])):
        return Finding("problem", f"{text}; vitcli needs {least[1]}", "make the environment with a newer Python")
    return Finding("ok", text)


def _requirements(distribution: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(name -> requirement of what is always needed, extra -> names), without what is for development only."""
    always: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for requirement in metadata.requires(distribution) or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if extra is None:
            always[name] = requirement.partition(";")[0].strip()
        elif extra[1] != "dev" and "python_version" not in requirement:
            extras.setdefault(extra[1], []).append(name)
    return always, extras


def _contradictions() -> Iterator[Finding]:
    """What installed packages need of each other and do not have, as `pip check` finds it, but for ours only."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("note", "the versions were not compared: the package `packaging` is not installed")
        return
    needed, extras = _requirements("vitcli")
    ours = ["vitcli", *needed, *IMPORTS, *(name for names in extras.values() for name in names)]
    for name in dict.fromkeys(ours):
        for text in (metadata.requires(name) or ()) if _version(name) else ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = _version(requirement.name)
            if version and not requirement.specifier.contains(version, prereleases=True):
                words = f"{name} {_version(name)} needs {requirement.name} {requirement.specifier}, not {version}"
                yield Finding("problem", words, f"pip install --upgrade {name} {requirement.name}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _import_failure(distribution: str) -> str | None:
    """None, or the last line of what the import said; in a process of its own, which a broken library may end."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS[distribution]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {_TIMEOUT_SECONDS} seconds"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with {done.returncode}"


def _cure(distribution: str) -> str:
    if distribution in ("torch", "torchvision", "torchcodec"):
        return f"pip install --upgrade --force-reinstall torch torchvision{' torchcodec' * (distribution[-1] == 'c')}"
    return f"pip install --upgrade --force-reinstall {distribution}"
