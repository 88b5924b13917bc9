"""How a compiled model behaves in a program: threads, forks, memory, odd arrays, and builds in many processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import InputError, OutOfMemoryError
from tensorlang.runtime import cache as cache_module
from tensorlang.runtime.artifact import read_artifact
from tensorlang.runtime.cache import ContentCache
from tests.models import save_classifier

CHILD = """
import sys, resource, numpy as np, tensorlang as tl
exe = tl.load(sys.argv[1])
x = np.ones((2, 3, 32, 32), np.float32)
before = exe(x)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
many = np.ones((4000, 3, 32, 32), np.float32)
resource.setrlimit(resource.RLIMIT_AS, (used + many.nbytes + (32 << 20),) * 2)
try:
    exe(many)
except tl.errors.OutOfMemoryError as error:
    assert isinstance(error, MemoryError)
    assert np.array_equal(exe(x), before)
    print("refused")
"""
IDLE = """
import os, sys, time, numpy as np, tensorlang as tl
exe = tl.load(sys.argv[1])
tl.set_num_threads(4)
x = np.ones((64, 3, 32, 32), np.float32)
for _ in range(5):
    exe(x)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    print(time.process_time() - before)
print(len(os.listdir("/proc/self/task")))
"""
BUILD = """
import sys, numpy as np, tensorlang as tl
exe = tl.compile(sys.argv[1], shapes={"batch": 1})
print(exe(np.ones((1, 3, 32, 32), np.float32)).tobytes().hex())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("model") / "classifier.onnx")


@pytest.fixture(scope="module")
def exe(model) -> Any:
    return tl.compile(model)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)


def test_eight_threads_call_one_executable(exe):
    feeds = [np.random.default_rng(k).standard_normal((k % 3 + 1, 3, 32, 32), dtype=np.float32) for k in range(8)]
    expected = [exe(feed) for feed in feeds]

    def work(k: int) -> bool:
        return all(np.array_equal(exe(feeds[k]), expected[k]) for _ in range(40))

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(work, range(8)))


def test_arrays_of_every_layout_give_the_same(exe, x):
    expected = exe(x)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(x.shape)
    misaligned[...] = x
    reversed_rows = x[::-1].copy()[::-1]
    read_only = x.copy()
    read_only.flags.writeable = False
    for odd in (misaligned, np.asfortranarray(x), reversed_rows, read_only):
        assert np.array_equal(exe(odd), expected)


def test_an_aligned_array_is_not_copied_and_a_misaligned_one_is(exe, x):
    frame = exe._new_frame()
    exe._enter(frame, [x])
    assert frame.inputs[0] == x.ctypes.data
    misaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    exe._enter(frame, [misaligned])
    assert frame.inputs[0] != misaligned.ctypes.data and frame.inputs[0] % 4 == 0
    assert frame.output_arrays[0].ctypes.data % 64 == 0


def test_dlpack_in_and_out(exe, x):
    class Producer:
        def __dlpack__(self, **options: Any) -> Any:
            return x.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

    frame = exe._new_frame()
    exe._enter(frame, [Producer()])
    assert frame.inputs[0] == x.ctypes.data
    result = exe(Producer())
    seen = np.from_dlpack(result)
    assert np.shares_memory(seen, result) and np.array_equal(seen, exe(x))


def test_a_tensor_that_numpy_cannot_see_is_refused(exe):
    class OnAnotherDevice:
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("it is on a GPU")

        def __dlpack_device__(self) -> Any:
            return (1, 0)

    with pytest.raises(InputError, match="GPU"):
        exe(OnAnotherDevice())


def test_bytes_in_the_other_order_are_refused(exe, x):
    with pytest.raises(InputError, match="dtype >f4"):
        exe(x.astype(">f4"))


def test_sizes_beyond_memory_are_an_error(exe, x):
    expected = exe(x)
    with pytest.raises(OutOfMemoryError, match="no memory"):
        exe(np.broadcast_to(np.float32(0), (1 << 40, 3, 32, 32)))
    assert np.array_equal(exe(x), expected)


def test_a_plan_beyond_all_addresses_is_an_error_before_anything_is_allocated(exe):
    with pytest.raises(OutOfMemoryError, match="batch = 1152921504606846976"):
        exe._plan_for({"batch": 1 << 60})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space")
def test_a_limit_on_memory_is_an_error_and_the_model_goes_on(exe, tmp_path):
    exe.save(tmp_path / "m.tl")
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "m.tl"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads by /proc")
def test_an_idle_program_uses_no_cpu_after_50_ms(exe, tmp_path):
    """Of all its threads together, in a fresh process: nothing that shows beside the interpreter's own sleep."""
    exe.save(tmp_path / "m.tl")
    done = subprocess.run([sys.executable, "-c", IDLE, tmp_path / "m.tl"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *used, threads = map(float, done.stdout.split())
    assert threads >= 4  # there are workers that might spin
    assert np.median(used) < 0.002, used  # a worker that got no core in its first 50 ms may spin later: not the rule


def test_forked_children_run_the_model_while_a_thread_runs_it(exe, x):
    expected, stop = exe(x), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            exe(x)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
                child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(exe(x), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def build(model: Path, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TENSORLANG_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", BUILD, str(model)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.deploy)])
def test_processes_that_build_the_same_model_leave_one_builds_files(model, tmp_path, count):
    alone = build(model, tmp_path / "one")
    result = alone.communicate(timeout=120)[0]
    assert alone.returncode == 0 and result
    together = [build(model, tmp_path / "many") for _ in range(count)]
    for process in together:
        out, err = process.communicate(timeout=400)
        assert (process.returncode, out) == (0, result), err
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")


@pytest.mark.parametrize("wanted", [1, pytest.param(100, marks=pytest.mark.deploy)])
def test_kills_at_random_moments_leave_a_cache_that_the_next_build_uses(model, tmp_path, wanted):
    """In each wave eight processes build with one empty cache; those not done by some random moment are killed then, until
    so many were."""
    random = np.random.default_rng(0)
    alone = build(model, tmp_path / "alone")
    begun = time.monotonic()
    result = alone.communicate(timeout=120)[0]
    seconds = time.monotonic() - begun
    kills = wave = 0
    while kills < wanted:
        wave += 1
        folder = tmp_path / f"wave{wave}"
        together = [build(model, folder) for _ in range(8)]
        begun = time.monotonic()
        for process, moment in zip(together, np.sort(random.uniform(0, 4 * seconds, 8)), strict=True):
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            process.send_signal(signal.SIGKILL)
        for process in together:
            out, err = process.communicate(timeout=120)
            kills += process.returncode == -signal.SIGKILL
            assert process.returncode == -signal.SIGKILL or (process.returncode, out) == (0, result), err
        left = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".tmp"]
        for path in left:
            if path.parent.parent.name == "models":
                read_artifact(path, verify=True)
            else:
                assert cache_module.is_whole(path.read_bytes()), path
        last = build(model, folder)
        out, err = last.communicate(timeout=120)
        assert (last.returncode, out, err) == (0, result, "")
        assert {p for p in files_of(folder) if not p.endswith(".tmp")} == files_of(tmp_path / "alone")


def test_after_damage_the_next_build_is_right(model, tmp_path):
    first = build(model, tmp_path)
    result, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = build(model, tmp_path)
    out, err = again.communicate(timeout=120)
    assert (again.returncode, out) == (0, result), err


def test_a_full_disk_is_warned_of_once_and_the_build_goes_on(model, tmp_path, monkeypatch):
    def full(**options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.warns(UserWarning, match="No space left") as caught:
        fresh = tl.compile(model, shapes={"batch": 3})
    assert len({str(w.message) for w in caught}) == len(caught) <= 2  # one for each kind of content
    assert fresh(np.ones((3, 3, 32, 32), np.float32)).shape == (3, 10)
    assert files_of(tmp_path) == set()


def test_what_killed_writers_left_is_swept(tmp_path):
    store = ContentCache(tmp_path)
    store.put("ab" + "0" * 62, b"value")
    old, new = tmp_path / "ab" / "old.tmp", tmp_path / "ab" / "new.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * cache_module.DEBRIS_SECONDS
    os.utime(old, (long_ago, long_ago))
    store.evict()
    assert not old.exists() and new.exists()
    assert store.get("ab" + "0" * 62) == b"value"
