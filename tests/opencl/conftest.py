"""OpenCL on whatever device there is; PoCL, from its wheel, is one on any CPU."""

from __future__ import annotations

import pytest

from tensorlang.codegen.opencl.device import default_device
from tensorlang.errors import BuildError


@pytest.fixture(scope="session")
def device():
    """The default device; tests that run something are skipped without one."""
    try:
        return default_device()
    except BuildError as error:
        pytest.skip(str(error))
