"""The whole of ONNX's backend tests, in worker processes with a time limit: `python -m tests.conformance.run`.

A crash or a time-out ends one worker, never the run. The result is a table by operator, RESULTS.md beside this file.

    python -m tests.conformance.run --jobs 2 --match 'node/test_conv' --no-table
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import onnx

from tests.conformance.suite import cases, check, operators

VERDICTS = ("pass", "unsupported", "mismatch", "error", "crash", "timeout")
TABLE = Path(__file__).with_name("RESULTS.md")


class Worker:
    """A process that judges one test after the other, by name on its standard input."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.conformance.run", "--worker"]
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.id: str | None = None
        self.begun = 0.0
        self.pending = b""

    def give(self, id: str) -> None:
        assert self.process.stdin is not None
        self.id, self.begun = id, time.monotonic()
        self.process.stdin.write(f"{id}\n".encode())
        self.process.stdin.flush()

    def answers(self) -> list[dict[str, str]] | None:
        """Complete lines that have come in; None at the end of the process."""
        assert self.process.stdout is not None
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self.pending = (self.pending + chunk).split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def work() -> None:
    """A worker's life: whatever the code under test prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        begun = time.monotonic()
        verdict, message = check(cases()[line.strip()])
        record = {"id": line.strip(), "verdict": verdict, "message": message, "seconds": time.monotonic() - begun}
        answers.write(json.dumps(record) + "\n")


def run(ids: list[str], jobs: int, limit: float) -> dict[str, dict[str, str]]:
    """The verdicts on tests, by id."""
    waiting, results = list(reversed(ids)), {}
    workers: list[Worker] = []
    begun = time.monotonic()

    def settle(worker: Worker, record: dict[str, str]) -> None:
        results[record["id"]] = record
        worker.id = None
        if len(results) % 100 == 0:
            counts = Counter(r["verdict"] for r in results.values())
            print(f"{time.monotonic() - begun:6.0f} s  {len(results)}/{len(ids)}  {dict(counts)}", file=sys.stderr, flush=True)

    def lose(worker: Worker, verdict: str, message: str) -> None:
        if worker.id is not None:
            settle(worker, {"id": worker.id, "verdict": verdict, "message": message})
        worker.end()
        workers.remove(worker)

    while waiting or any(w.id for w in workers):
        while waiting and len(workers) < jobs:
            workers.append(Worker())
        for worker in workers:
            if waiting and worker.id is None:
                worker.give(waiting.pop())
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                assert worker.process.stdout is not None
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(0.5)]
        for worker in ready:
            records = worker.answers()
            if records is None:
                lose(worker, "crash", f"the process ended with {worker.process.wait()}")
            for record in records or ():
                settle(worker, record)
        for worker in list(workers):
            if worker.id is not None and time.monotonic() - worker.begun > limit:
                lose(worker, "timeout", f"more than {limit:.0f} s")
    for worker in workers:
        worker.end()
    return results


def table(results: dict[str, dict[str, str]]) -> str:
    """Markdown: the sum, then a row per operator, then every test that is neither right nor refused."""
    of = operators()
    total = Counter(r["verdict"] for r in results.values())
    lines = [
        "# ONNX's backend tests",
        "",
        f"`make conformance`, onnx {onnx.__version__}: {len(results)} tests, "
        + ", ".join(f"{total[v]} {v}" for v in VERDICTS if total[v])
        + ".",
        "",
        "| operator | " + " | ".join(VERDICTS) + " |",
        "|---|" + "---:|" * len(VERDICTS),
    ]
    by_operator: dict[str, Counter[str]] = {}
    for id, record in results.items():
        by_operator.setdefault(of[id], Counter())[record["verdict"]] += 1
    for operator, counts in sorted(by_operator.items()):
        lines.append(f"| {operator} | " + " | ".join(str(counts[v] or "") for v in VERDICTS) + " |")
    for title, verdicts in (("Not right", ("mismatch", "error", "crash", "timeout")), ("Refused", ("unsupported",))):
        listed = [(id, r) for id, r in sorted(results.items()) if r["verdict"] in verdicts]
        if listed:
            lines += ["", f"## {title}", ""]
            lines += [f"- `{id}` {r['verdict']}: {_short(r['message'])}" for id, r in listed]
    return "\n".join(lines) + "\n"


def _short(message: str) -> str:
    """The first 160 characters on one line, without addresses and paths, which differ from run to run."""
    text = re.sub(r"0x[0-9a-f]+|/[\w./-]+/", "", " ".join(message.split()))
    return text[:160]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per test")
    parser.add_argument("--match", default="", help="regular expression on kind/name")
    parser.add_argument("--no-table", action="store_true", help="do not write RESULTS.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return 0
    ids = [id for id in cases() if re.search(options.match, id)]
    results = run(ids, options.jobs, options.limit)
    text = table(results)
    if options.no_table or options.match:
        print(text)
    else:
        TABLE.write_text(text)
        print(text.splitlines()[2])
    return int(any(r["verdict"] in ("crash", "timeout") for r in results.values()))


if __name__ == "__main__":
    sys.exit(main())
