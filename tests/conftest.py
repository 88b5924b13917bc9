"""Shared by all tests: a cache of their own, hypothesis profiles, golden texts.

* Builds of a test run are cached in a fresh directory that all xdist workers share, never in the user's cache. Set
  `TENSORLANG_CACHE_DIR` to keep it between runs.
* hypothesis is deterministic here (same input, same verdict). `make fuzz` takes the "fuzz" profile instead: random
  seeds and `FUZZ_EXAMPLES` random schedules.
* `golden(text)` compares with a file under `tests/golden/`; `pytest --update-golden` rewrites it, for review.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz.summary import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown  # noqa: F401  (hooks)

FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5000"))  # of random schedules; a tenth of it for any other test
GOLDEN = Path(__file__).parent / "golden"

# an example may compile a kernel: time is no sign of a bad strategy
_SLOW_BUILDS = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("tests", derandomize=True, deadline=None, suppress_health_check=_SLOW_BUILDS)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=max(1, FUZZ_EXAMPLES // 10),
    print_blob=True,
    suppress_health_check=_SLOW_BUILDS,
)
settings.load_profile("tests")

_own_cache: Path | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files under tests/golden/")


def pytest_configure(config: pytest.Config) -> None:
    """Before workers start, so that they inherit the cache directory."""
    global _own_cache
    if "TENSORLANG_CACHE_DIR" not in os.environ:
        _own_cache = Path(tempfile.mkdtemp(prefix="tensorlang-test-cache-"))
        os.environ["TENSORLANG_CACHE_DIR"] = str(_own_cache)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Only the process that made the directory removes it: the controller under xdist."""
    if _own_cache is not None:
        os.environ.pop("TENSORLANG_CACHE_DIR", None)
        shutil.rmtree(_own_cache, ignore_errors=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`golden(text, name=None)`: `text` equals the file named after this test, under tests/golden/<test's folder>/."""
    module = Path(request.path).relative_to(Path(__file__).parent).with_suffix("")
    stem = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")

    def compare(text: str, name: str | None = None) -> None:
        path = GOLDEN / module.parent / f"{module.name}.{name or stem}.txt"
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"no golden file {path.name}: run pytest --update-golden and review it\n{text}")
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
            pytest.fail(f"differs from {path}:\n" + "\n".join(lines))

    return compare
