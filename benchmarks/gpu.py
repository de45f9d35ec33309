"""Every check and figure that needs a GPU, in phases of their own: short ones first, each result written at once.

    python benchmarks/gpu.py                        all phases, under 8 minutes
    python benchmarks/gpu.py --only step,loop       some of them
    python benchmarks/gpu.py --list                 what there is, and how long each may take

A phase is a process that is ended at its limit of time: what it has printed until then is kept, and the next one
starts. A result is a line of JSON on the console and in the file `--out`, to which later calls append.
It needs PyTorch, torchvision, timm and the packages that vitcli needs. `--device cpu` tries the script itself.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import gpu_phases

#: phase -> seconds that it may take, in the order in which they run
LIMITS = {
    "device": 20, "attention": 20, "reads": 30, "fp16": 20, "repeat": 40, "tests": 40, "step": 85, "profile": 20,
    "compile": 65, "low_bit": 20, "loop": 80, "deploy": 40,
}  # fmt: skip


def main() -> int:
    options = parsed()
    if options.list:
        for name, seconds in LIMITS.items():
            print(f"{name:<10} {seconds:4} s  {gpu_phases.PHASES[name].__doc__.splitlines()[0]}")
        return 0
    failed = [name for name in options.only if not run_phase(name, options)]
    print(f"results: {options.out}" + (f"; not complete: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names, default=list(LIMITS), help="phases, separated by commas")
    parser.add_argument("--list", action="store_true", help="list the phases and stop")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: tiny sizes, to try the script")
    parser.add_argument("--limit-factor", type=float, default=1.0, help="multiplies the limits of time")
    return parser.parse_args()


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - LIMITS.keys():
        raise argparse.ArgumentTypeError(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
    return [name for name in LIMITS if name in chosen]


def run_phase(name: str, options: argparse.Namespace) -> bool:
    """Run one phase as a process; whether it ended by itself, and well."""
    limit = LIMITS[name] * options.limit_factor
    command = [sys.executable, gpu_phases.__file__, name, options.device]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{"):
                record(options.out, {"phase": name, **json.loads(line)})
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
    seconds = time.perf_counter() - start
    end = "done" if code == 0 else f"ended at its limit of {limit:.0f} s" if seconds >= limit else f"exit code {code}"
    record(options.out, {"phase": name, "end": end, "seconds": round(seconds, 1)})
    return code == 0


def record(out: Path, result: dict) -> None:
    """Print a result and append it to the file, so that nothing that comes later can lose it."""
    line = json.dumps(result)
    print(line, flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
