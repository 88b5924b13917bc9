"""Run in a fresh process by ``build_cost``: compile one model, report what it cost, as JSON on the last line of
standard output.

``python -m bench.build_child MODEL THREADS [FEEDS.npz]``. With feeds the model is compiled for their shapes and run
once. It imports nothing of the benchmark and no other runtime, so that the process's whole CPU time is tensorlang's.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

import tensorlang as tl


def cpu_seconds() -> float:
    """User and system time of this process, its threads and its finished children."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(model: str, threads: str, feeds_file: str | None = None) -> None:
    tl.set_num_threads(int(threads))
    feeds = dict(np.load(feeds_file)) if feeds_file else {}
    shapes = {name: tuple(array.shape) for name, array in feeds.items()} or None
    cpu, wall = cpu_seconds(), time.perf_counter()
    executable = tl.compile(model, target="cpu", shapes=shapes)
    result: dict[str, object] = {
        "compile_cpu": cpu_seconds() - cpu,
        "compile_wall": time.perf_counter() - wall,
        "report": {name: float(value) for name, value in (getattr(executable, "build_report", None) or {}).items()},
    }
    if feeds:
        wall = time.perf_counter()
        executable.run(feeds)
        result["first_run_wall"] = time.perf_counter() - wall
    result["process_cpu"] = cpu_seconds()
    result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
