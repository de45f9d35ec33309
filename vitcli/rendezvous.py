"""Where the ranks of a run meet: a store that is new in each attempt, also where torchrun keeps one for all of them.

Since torch 2.5, torchrun serves one store over all restarts. A rank that is started again finds the addresses that
dead ranks left there, and gloo cannot connect to them (github.com/pytorch/pytorch/issues/135712). The number of
restarts does not tell attempts apart: torchrun counts them on each machine for itself. So rank 0 draws a name for the
attempt:

    rank r:  hello/r = word            a word that nobody has used before
    rank 0:  name/r/word = NAME        for each hello it sees; one that a dead rank left is answered too, and never read
    rank r:  met/NAME/r = ""           rank 0 goes on when all have the name
"""

# pyright: reportPrivateImportUsage=false
# (torch.distributed has its stores from a module whose name begins with an underscore)

import os
import secrets
import time
from datetime import timedelta

from torch.distributed import DistNetworkError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """(store of this attempt, rank, number of ranks), by the variables that torchrun sets; every rank must call it.

    Raises:
        DistError: not all ranks came within `timeout`.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        os.environ["MASTER_ADDR"] = "localhost"  # some machines do not find themselves by their own name
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    name = _hand_out(store, size, timeout) if rank == 0 else _ask(store, rank)
    return PrefixStore(name, store), rank, size


def _hand_out(store: Store, size: int, timeout: timedelta) -> str:
    name = secrets.token_hex(8)
    missing = set(range(1, size))
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"hello/{rank}"]):
                store.set(f"name/{rank}/{store.get(f'hello/{rank}').decode()}", name)
            if store.check([f"met/{name}/{rank}"]):
                missing.remove(rank)
        if time.monotonic() > deadline:
            raise DistNetworkError(f"ranks {sorted(missing)} of {size} did not start")
        time.sleep(0.01)
    return name


def _ask(store: Store, rank: int) -> str:
    word = secrets.token_hex(8)
    store.set(f"hello/{rank}", word)
    name = store.get(f"name/{rank}/{word}").decode()  # waits for it
    store.set(f"met/{name}/{rank}", "")
    return name
