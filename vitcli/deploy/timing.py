"""Latency of several candidates, measured in turns: whatever disturbs the machine disturbs all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np

Run = Callable[[], object]


def by_turns(runs: Mapping[str, Run], *, rounds: int = 10, seconds: float = 0.1) -> dict[str, np.ndarray]:
    """The time of each call in ms, for every candidate; in a round each runs for `seconds`, at least three times."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # compilation and memory layout happen on first use
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.02)  # thread pools of the previous candidate keep spinning for a while
            run()
            begun, calls = time.perf_counter(), 0
            while calls < 3 or time.perf_counter() - begun < seconds:
                start = time.perf_counter()
                run()
                times[name].append(1000 * (time.perf_counter() - start))
                calls += 1
    return {name: np.array(values) for name, values in times.items()}


def percentiles(times: np.ndarray) -> dict[str, float]:
    """p50 and p95 in ms."""
    return {"p50_ms": round(float(np.percentile(times, 50)), 3), "p95_ms": round(float(np.percentile(times, 95)), 3)}
