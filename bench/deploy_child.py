"""Run in a fresh process by ``deploy``: load one model, run it, report what that took, as JSON on the last line of standard
output.

``python bench/deploy_child.py tensorlang|onnxruntime MODEL FEEDS.npz THREADS RUNS``. It imports the runtime that it measures
and NumPy, nothing else; time and memory are counted from after NumPy's import.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def memory_mib(field: str) -> float:
    """What Linux says of this process's memory: ``VmHWM``, the most that was resident, or ``RssAnon``, what no file holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main(engine: str, model: str, feeds_file: str, threads: str, runs: str) -> None:
    """Load and run; see above."""
    with np.load(feeds_file) as archive:
        feeds = {name: archive[name] for name in archive.files}
    before = memory_mib("VmHWM")
    cpu, wall = time.process_time(), time.perf_counter()
    call: Any
    if engine == "tensorlang":
        import tensorlang as tl

        tl.set_num_threads(int(threads))
        executable = tl.load(model)
        call = lambda: executable.run(feeds)  # noqa: E731
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        call = lambda: session.run(None, feeds)  # noqa: E731
    result = {"load_cpu": time.process_time() - cpu, "load_wall": time.perf_counter() - wall}
    result["loaded_mib"] = memory_mib("VmHWM") - before
    begun = time.perf_counter()
    for _ in range(int(runs)):
        call()
        result.setdefault("first_run_wall", time.perf_counter() - begun)
    result |= {"peak_mib": memory_mib("VmHWM") - before, "anonymous_mib": memory_mib("RssAnon"), "numpy_mib": before}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
