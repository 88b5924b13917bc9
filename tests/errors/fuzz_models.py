"""Damaged real models: files of the zoo and the standard models, damaged as in `corruption`, each judged in a fork of its own.

    python -m tests.errors.fuzz_models --count 2000 --seed 0        (`make fuzz-models`)

A damaged model is to give a typed error, or to compile, run, and agree with onnxruntime where that runs it too. Anything else
is reported: another exception, a crash, more than `SECONDS` beyond what the sound model takes with an empty cache, more than
`MEMORY` bytes beyond what a worker begins with. A worker is a fork of one process that has loaded the compiler once; its time
is processor time, so that other work on the machine does not count.

Two disagreements with onnxruntime are told apart and not reported: outputs of which the sound model's disagree too, and
results that the standard's own evaluator finds as we do (some of onnxruntime's kernels drop a NaN on the way).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ["TENSORLANG_NUM_THREADS"] = "1"  # before anything asks: a fork has no threads but its own

import numpy as np
import onnx

import tensorlang as tl
from bench import agreement, zoo
from tensorlang.errors import TensorlangError
from tests.errors.corruption import damaged, sound_models

SECONDS = 10.0
PATIENCE = 20.0  # wall time that a worker may take, as a multiple of the processor time that it may
MEMORY = 6 << 30
COMPARE_SECONDS = 60.0
MANY_NODES = 300  # a model of more is only cut and edited, which rarely leaves anything to compile
AS_SOUND, REFERENCE = "ran, differs as undamaged", "ran, agrees with the reference"
Feeds = dict[str, np.ndarray]


@dataclass
class Model:
    """A sound model: its bytes, inputs, how long import, build and a run of it take (None: not measured yet), what differs."""

    name: str
    content: bytes
    feeds: Feeds
    large: bool = False
    seconds: float | None = None
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of one case: `outcome` is a class of its own for the table, `detail` says more, `differs` names outputs."""

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    differs: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.outcome in ("typed error", "ran, agrees", "ran", AS_SOUND, REFERENCE)


def real_models(largest: int) -> list[Model]:
    """The zoo's models that are in the cache and not larger than `largest` bytes, and the small synthetic ones."""
    found = [
        Model(name, zoo.path(name).read_bytes(), zoo.inputs(name, 0), len(onnx.load(zoo.path(name)).graph.node) > MANY_NODES)
        for name in zoo.NAMES
        if zoo.is_cached(name) and zoo.path(name).stat().st_size <= largest
    ]
    return found + [Model(f"synthetic {n}", m.SerializeToString(), {}) for n, m in enumerate(sound_models())]


def judge(model: Model, content: bytes, say: Callable[[Verdict], None]) -> None:
    """Import, compile, run, compare. `say` is called with a verdict on us, and again once onnxruntime has been asked."""
    begun = time.process_time()
    try:
        graph = tl.from_onnx(content)
        exe = tl.compile(graph)
        feeds = {i.name: _feed(i.shape, np.dtype(i.dtype), model.feeds.get(i.name)) for i in exe.inputs}
        ours = exe.run(feeds)
    except TensorlangError as error:
        say(Verdict("typed error", f"{type(error).__name__}: {str(error)[:200]}", time.process_time() - begun))
        return
    except Exception as error:
        say(Verdict(f"untyped {type(error).__name__}", str(error)[:400], time.process_time() - begun))
        return
    say(Verdict("ran", "", time.process_time() - begun))
    try:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        theirs = dict(zip(names, session.run(names, feeds), strict=True))
        with np.errstate(all="ignore"):
            found = agreement.check(ours, theirs, content, feeds)
    except Exception as error:
        say(Verdict("ran", f"onnxruntime: {str(error)[:100]}"))
        return
    wrong = [o for o in found.outputs if not o.ok]
    if not wrong:
        say(Verdict("ran, agrees"))
    elif all(o.name in model.differs for o in wrong):
        say(Verdict(AS_SOUND))
    else:
        # It may be onnxruntime that leaves the standard: its relu(NaN) is 0.
        outcome = REFERENCE if _as_reference(content, feeds, ours) else "ran, differs"
        say(Verdict(outcome, str(found.worst), differs=tuple(o.name for o in wrong)))


def _as_reference(content: bytes, feeds: Feeds, ours: Mapping[str, np.ndarray]) -> bool:
    """Whether the standard's own evaluator finds what we do."""
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(content).run(None, dict(feeds))
            return agreement.check(ours, dict(zip(ours, found, strict=True)), content, feeds).ok
    except Exception:  # whatever the evaluator cannot do: then it does not agree
        return False


def _feed(shape: tuple[int | str, ...], dtype: np.dtype, known: np.ndarray | None) -> np.ndarray:
    if known is not None and known.dtype == dtype and known.ndim == len(shape):
        if all(isinstance(d, str) or d == n for d, n in zip(shape, known.shape, strict=True)):
            return known
    sizes = [d if isinstance(d, int) else 2 for d in shape]
    if float(np.prod(sizes, dtype=np.float64)) > 1 << 28:
        raise tl.errors.InputError(f"the fuzzer feeds no {sizes}")
    return np.ones(sizes, dtype)


def in_fork(model: Model, content: bytes, seconds: float) -> Verdict:
    """`judge` in a fork that is killed when it takes more than `seconds` of processor time."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(model, content, write)
    os.close(write)
    begun, until, verdict, text = time.monotonic(), seconds * PATIENCE, Verdict("crash"), b""
    while True:
        ready, _, _ = select.select([read], [], [], 0.5)
        if not ready:
            late = verdict.outcome == "crash" and _processor_time(pid) > seconds
            if not late and time.monotonic() < begun + until:
                continue
            os.kill(pid, signal.SIGKILL)
            if verdict.outcome == "crash":
                verdict = Verdict("late", f"more than {seconds:.0f} s of processor time, or {until:.0f} in all", seconds)
            break
        piece = os.read(read, 1 << 16)
        if not piece:
            break
        text += piece
        *whole, text = text.split(b"\n")
        for line in whole:
            said = Verdict(**json.loads(line))
            verdict = Verdict(said.outcome, said.detail, said.seconds or verdict.seconds, tuple(said.differs))
            until = time.monotonic() - begun + COMPARE_SECONDS  # onnxruntime's own time is not ours
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if verdict.outcome == "crash":
        return Verdict("crash", f"wait status {status}", time.monotonic() - begun)
    return verdict


def _processor_time(pid: int) -> float:
    """Seconds of processor time of a process, its ended children's included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _child(model: Model, content: bytes, write: int) -> None:
    """The fork's whole life."""
    status = 1
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        judge(model, content, lambda v: os.write(write, (json.dumps(vars(v)) + "\n").encode()) and None)
        status = 0
    finally:
        os._exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=30_000_000, help="bytes of the largest model file")
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--keep", type=Path, help="a folder for the models that fail")
    parser.add_argument("--first", type=int, default=0, help="the first case: --count are tried from there on")
    args = parser.parse_args()
    models = real_models(args.largest)
    if not models:
        raise SystemExit("no models: python -m bench fetch")
    judge(models[-1], models[-1].content, lambda v: None)  # loads the compiler, once for all forks
    counts: Counter[str] = Counter()
    bad = 0
    for case in range(args.first, args.first + args.count):
        if args.only is not None and case != args.only:
            continue
        rng = np.random.default_rng([args.seed, case])
        model = models[rng.integers(len(models))]
        if model.seconds is None:
            os.environ["TENSORLANG_CACHE"] = "0"  # damage may change every kernel
            sound = in_fork(model, model.content, 600.0)
            del os.environ["TENSORLANG_CACHE"]
            model.seconds, model.differs = sound.seconds, sound.differs
            print(f"{model.name}: {sound.outcome} in {sound.seconds:.1f} s {sound.detail}", flush=True)
        content = damaged(model.content, rng, cheap=model.large)
        verdict = in_fork(model, content, SECONDS + (model.seconds or 0.0))
        counts[verdict.outcome] += 1
        if not verdict.good:
            bad += 1
            print(f"{case}: {model.name}: {verdict.outcome} after {verdict.seconds:.1f} s: {verdict.detail}", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{case}.onnx").write_bytes(content)
        if case % 100 == 99:
            print(f"-- {case + 1}: {dict(counts)}", flush=True)
    print(f"{sum(counts.values())} damaged models: {dict(counts)}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
