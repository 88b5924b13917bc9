"""PTX to a device's own code by NVIDIA's assembler, where it is found: what registers and memory each kernel takes.

    ptxas info    : Used 40 registers, used 1 barriers, 8192 bytes smem      ->   Assembly("dense", 40, 8192, 0, 0, 0, 1)

Running does not need it (the driver assembles PTX itself); it tells, with no GPU at hand, whether a schedule's registers fit.
It is looked for on PATH, in the toolkit's usual place, and in NVIDIA's wheel (`pip install nvidia-cuda-nvcc`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tensorlang.codegen.cuda.ptx import DYNAMIC_SHARED
from tensorlang.errors import BuildError

INSTALL = "pip install 'nvidia-cuda-nvcc==13.0.*', or put a CUDA toolkit's ptxas on PATH"
_TOOLKIT = Path("/usr/local/cuda/bin/ptxas")
_SECONDS = 600


@dataclass(frozen=True)
class Assembly:
    """What a kernel takes on a device, as its assembler says.

    Attributes:
        name: the function.
        registers: of each thread.
        shared_bytes: of each block.
        stack_bytes: memory of each thread for arrays that did not become registers.
        spill_stores, spill_loads: bytes that each thread writes to and reads from memory because registers did not suffice.
        barriers: used.
    """

    name: str
    registers: int
    shared_bytes: int = 0
    stack_bytes: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    barriers: int = 0

    @property
    def spills(self) -> bool:
        """Whether registers did not suffice."""
        return self.spill_stores + self.spill_loads > 0

    def __str__(self) -> str:
        text = f"{self.name}: {self.registers} registers, {self.shared_bytes} bytes shared, {self.stack_bytes} bytes of stack"
        spills = f"spills {self.spill_stores} bytes out and {self.spill_loads} in" if self.spills else "no spills"
        return f"{text}, {spills}"


def find_ptxas() -> str | None:
    """The assembler's path; None where there is none."""
    if found := shutil.which("ptxas"):
        return found
    places = [_TOOLKIT]
    spec = find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec is not None else ():
        places += [*Path(root).glob("cu*/bin/ptxas"), Path(root, "cuda_nvcc", "bin", "ptxas")]
    return next((str(p) for p in places if p.is_file()), None)


def assemble(ptx: dict[str, str], capability: tuple[int, int]) -> list[Assembly]:
    """Assemble modules of one function each, and say what each function takes.

    Args:
        ptx: text by the function's name.
        capability: compute capability of the device, (9, 0) for H100 and H200.

    Raises:
        BuildError: no assembler is found, or it refuses a module; the message holds what it says.
    """
    program = find_ptxas()
    if program is None:
        raise BuildError(f"ptxas is not found: {INSTALL}")
    found = []
    with tempfile.TemporaryDirectory(prefix="tensorlang-ptxas-") as folder:
        for number, (name, text) in enumerate(ptx.items()):
            source = Path(folder, f"{number}.ptx")
            source.write_text(text)
            made, arch = source.with_suffix(".cubin"), f"-arch=sm_{capability[0]}{capability[1]}"
            command = [program, "-v", arch, str(source), "-o", str(made)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BuildError(f"{program} does not run: {error}") from error
            if done.returncode:
                raise BuildError(f"ptxas refuses {name}:\n{(done.stderr or done.stdout).strip()}")
            asked = re.search(rf"^{re.escape(DYNAMIC_SHARED)}(\d+)", text, flags=re.MULTILINE)
            report = parse_report(name, done.stderr + done.stdout)
            found.append(replace(report, shared_bytes=report.shared_bytes + (int(asked[1]) if asked else 0)))
    return found


def parse_report(name: str, text: str) -> Assembly:
    """What `ptxas -v` says of one function.

    Raises:
        BuildError: it says nothing that is known.
    """

    def number(pattern: str) -> int:
        return max(map(int, re.findall(pattern, text)), default=0)

    if not re.search(r"Used \d+ registers", text):
        raise BuildError(f"what ptxas says of {name} is not understood:\n{text.strip()}")
    return Assembly(
        name, number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes spill loads"), number(r"used (\d+) barriers"),
    )  # fmt: skip
