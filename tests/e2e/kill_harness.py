"""Trains in forked children that are killed by SIGKILL at random moments and started again, until the run is done.

    python kill_harness.py RUN_DIR SEED MEAN_SECONDS -- recipe options …

Prints the number of kills. Children are forked from a parent that has imported everything they need but used none of
it, so that a restart costs milliseconds instead of seconds.
"""

import os
import random
import signal
import sys
import time

import torch
import torch._dynamo
import torchvision  # noqa: F401

import vitcli.commands.train
from vitcli.recipe.load import load_recipe


def child(words: list[str]) -> None:
    torch.set_num_threads(1)
    names, values = words[::2], words[1::2]
    keys = {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    try:
        vitcli.commands.train.train(load_recipe("quickstart", keys))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    run_dir, seed, mean = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    words = [*sys.argv[5:], "--run_dir", run_dir, "--resume", "auto"]
    rng = random.Random(seed)
    kills = 0
    while True:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            child(words)
        deadline = time.monotonic() + rng.uniform(0, 2 * mean) * (1 + kills / 20)
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                print(kills)
                sys.exit(os.waitstatus_to_exitcode(status))
            time.sleep(0.002)
        os.killpg(pid, signal.SIGKILL) if os.getpgid(pid) == pid else os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1


main()
