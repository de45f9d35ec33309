"""What this machine, or the container that it is, has: cores, memory, disk, limits, and settings that slow it down."""

import fcntl
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vitcli.doctor.finding import Finding
from vitcli.process import num_cores

GIB = 2**30
#: decoding processes hand their batches over in shared memory
LEAST_SHARED_BYTES = GIB
LEAST_FREE_BYTES = 5 * GIB
#: each batch that waits holds file descriptors
LEAST_OPEN_FILES = 1024


def find_machine(folder: Path, cgroup: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Cores, memory and limits, and whether a run can be written under `folder`."""
    yield _cores(cgroup)
    yield _memory(cgroup)
    if Path("/dev/shm").is_dir():
        yield shared_memory(shutil.disk_usage("/dev/shm").total)
    yield from limits(*(resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)))
    yield from disk(folder)
    yield from settings(os.environ, num_cores())


def cpu_quota(cgroup: Path) -> float | None:
    """How many cores' time the container gets, by cgroup v2; None: no limit is set."""
    words = _read(cgroup / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _cores(cgroup: Path) -> Finding:
    quota, cores = cpu_quota(cgroup), num_cores()
    if quota and quota < cores:
        text = f"{cores} cores, of which the container may use {quota:g}"
        return Finding("note", text, f"set --num_parallel_workers {max(1, int(quota))}: the default counts the cores")
    return Finding("ok", f"{cores} core{'s' * (cores != 1)}")


def _memory(cgroup: Path) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = next((line.split()[1] for line in _read(Path("/proc/meminfo")).splitlines() if "MemAvail" in line), "")
    limit = _read(cgroup / "memory.max").strip()
    text = f"memory {total / GIB:.1f} GiB" + (f", {int(available) * 1024 / GIB:.1f} GiB available" if available else "")
    if limit.isdecimal() and int(limit) < total:
        text += f"; the container may use {int(limit) / GIB:.1f} GiB"
    return Finding("ok", text)


def shared_memory(total: int) -> Finding:
    """`total`: bytes of /dev/shm."""
    text = f"/dev/shm {total / GIB:.1f} GiB"
    if total >= LEAST_SHARED_BYTES:
        return Finding("ok", text)
    return Finding("note", f"{text}: decoding processes may be killed", "docker run --shm-size=8g, or fewer workers")


def limits(open_files: int, file_bytes: int) -> Iterator[Finding]:
    """The soft limits of this process; `resource.RLIM_INFINITY`: none."""
    if open_files != resource.RLIM_INFINITY and open_files < LEAST_OPEN_FILES:
        yield Finding("note", f"only {open_files:,} files may be open at a time", "ulimit -n 65536")
    else:
        yield Finding("ok", f"open files {'unlimited' if open_files == resource.RLIM_INFINITY else f'{open_files:,}'}")
    if file_bytes != resource.RLIM_INFINITY:
        level = "problem" if file_bytes < GIB else "note"
        yield Finding(level, f"a file may have {file_bytes / 2**20:,.0f} MiB at most", "ulimit -f unlimited")


def disk(folder: Path) -> Iterator[Finding]:
    """Whether checkpoints can be written, locked and linked where `folder` is or would be made."""
    where = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(where).free
    text = f"{free / GIB:,.1f} GiB free at {where}"
    if free < LEAST_FREE_BYTES:
        yield Finding("note", text, "a checkpoint has about 12 bytes per parameter, 16 with an average")
    else:
        yield Finding("ok", text)
    try:
        with tempfile.TemporaryDirectory(prefix=".vitcli-doctor-", dir=where) as probe:
            yield from _file_system(Path(probe))
    except OSError as error:
        yield Finding("problem", f"cannot write to {where}: {error.strerror}", "choose another folder with --run_dir")


def _file_system(probe: Path) -> Iterator[Finding]:
    """What a network file system may lack."""
    with (probe / "file").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            help = "never start two trainings with the same --run_dir"
            yield Finding("note", "the file system has no locks: two runs in one folder are not noticed", help)
    try:
        (probe / "link").symlink_to("file")
    except OSError:
        yield Finding("note", "the file system has no symbolic links: a run has no `best`")


def settings(environment: Mapping[str, str], cores: int) -> Iterator[Finding]:
    """Variables that change how PyTorch runs here."""
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > cores:
        yield Finding("note", f"OMP_NUM_THREADS={threads}, and there are {cores} cores", f"OMP_NUM_THREADS={cores}")
    elif threads.isdecimal() and int(threads) < cores and "WORLD_SIZE" not in environment:
        text = f"OMP_NUM_THREADS={threads}: one process on CPUs uses {threads} of {cores} cores"
        yield Finding("note", text, "unset OMP_NUM_THREADS, unless several processes share the machine")
    if environment.get("CUDA_LAUNCH_BLOCKING") == "1":
        yield Finding("note", "CUDA_LAUNCH_BLOCKING=1 makes training on a GPU slow", "unset CUDA_LAUNCH_BLOCKING")
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        yield Finding("note", "CUDA_VISIBLE_DEVICES is empty: no GPU is used", "unset CUDA_VISIBLE_DEVICES")
    if "WORLD_SIZE" in environment and "TORCHELASTIC_RUN_ID" not in environment and "SLURM_JOB_ID" not in environment:
        size = environment["WORLD_SIZE"]
        yield Finding("note", f"WORLD_SIZE={size} is set: vitcli takes this process for one of {size}", "unset it")


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
