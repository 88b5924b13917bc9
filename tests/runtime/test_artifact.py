"""Files of compiled models: any flipped bit is refused or means nothing, and loading is fast."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import ArtifactError
from tensorlang.runtime.artifact import PAGE, checksum, read_artifact
from tests.models import save_classifier

FLIPS = 150
X = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
LOAD = """
import sys, time, numpy
begun = time.process_time()
import tensorlang as tl
tl.load(sys.argv[1])
print(time.process_time() - begun)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`m.tl`, and beside it `libm.so` of the same model."""
    folder = tmp_path_factory.mktemp("saved")
    exe = tl.compile(save_classifier(folder / "classifier.onnx"), shapes={"batch": {1, 2}})
    exe.save(folder / "m.tl")
    tl.compile(folder / "classifier.onnx").export_library(folder / "libm.so")
    return folder / "m.tl"


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", ["m.tl", "libm.so"])
def test_a_flipped_bit_is_refused_or_means_nothing(saved: Path, tmp_path: Path, name: str) -> None:
    """At places all over the file, and in every byte of headers: nothing else than `ArtifactError`, nothing silently wrong."""
    path = saved.with_name(name)
    content, expected = path.read_bytes(), tl.load(path)(X)
    random = np.random.default_rng(1)
    bits = random.integers(0, len(content) * 8, FLIPS).tolist()
    starts = [at for at in range(len(content)) if content.startswith((b"PK\3\4", b"PK\1\2", b"PK\5\6", b"\x7fELF"), at)]
    bits += [8 * (at + k) + int(random.integers(8)) for at in starts for k in range(min(30, len(content) - at))]
    refused = 0
    for bit in bits:
        changed = flipped(content, bit)
        (tmp_path / name).write_bytes(changed)
        try:
            loaded = tl.load(tmp_path / name)
        except ArtifactError as error:
            assert str(tmp_path / name) in str(error)
            refused += 1
            continue
        np.testing.assert_array_equal(loaded(X), expected, err_msg=f"bit {bit}")
    assert refused > FLIPS // 3


def test_a_flipped_bit_of_the_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        nbytes = archive.getinfo("weights.bin").file_size
    start = content.index(b"PK\1\2") - nbytes
    assert start % PAGE == 0 and nbytes > 64
    for bit in range(start * 8, (start + nbytes) * 8, 997):
        (tmp_path / "m.tl").write_bytes(flipped(content, bit))
        with pytest.raises(ArtifactError, match="weights' checksum"):
            tl.load(tmp_path / "m.tl")


@pytest.mark.parametrize("kept", [0, 3, 29, 100, 5000, -1, -30])
def test_a_file_cut_short_is_refused(saved: Path, tmp_path: Path, kept: int) -> None:
    (tmp_path / "m.tl").write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"m\.tl"):
        tl.load(tmp_path / "m.tl")


def test_what_the_manifest_does_not_list_is_refused(saved: Path, tmp_path: Path) -> None:
    """An entry lost or renamed would otherwise leave a program with another one's code."""
    manifest, _, rest = saved.read_bytes().partition(b"PK\3\4\x14\0\0\0\0\0\0\0!\0")[2].partition(b"PK\3\4")
    (tmp_path / "m.tl").write_bytes(saved.read_bytes()[:14] + manifest + b"PK\3\4" + rest.replace(b"1/model.so", b"1/modem.so"))
    with pytest.raises(ArtifactError, match="its manifest lists"):
        tl.load(tmp_path / "m.tl")


def test_swapped_weights_are_refused_by_their_crc(saved: Path, tmp_path: Path) -> None:
    """Within a page, the fast sum does not see the order of 64-bit words; `verify` does."""
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        nbytes = archive.getinfo("weights.bin").file_size
    content = bytearray(saved.read_bytes())
    start = content.index(b"PK\1\2") - nbytes
    content[start : start + 8], content[start + 8 : start + 16] = content[start + 8 : start + 16], content[start : start + 8]
    (tmp_path / "m.tl").write_bytes(content)
    read_artifact(tmp_path / "m.tl")
    with pytest.raises(ArtifactError, match="CRC"):
        tl.load(tmp_path / "m.tl", verify=True)
    np.testing.assert_array_equal(tl.load(saved, verify=True)(X), tl.load(saved)(X))


@pytest.mark.parametrize("nbytes", [0, 1, 8, 4095, 4096, 4097, 100_000])
def test_the_checksum_sees_every_byte_and_the_order_of_pages(nbytes: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    for at in sorted({0, nbytes // 2, max(0, nbytes - 1)}) if nbytes else ():
        other = data.copy()
        other[at] ^= 16
        assert checksum(other) != checksum(data)
    if nbytes > 2 * PAGE:
        other = np.concatenate([data[PAGE : 2 * PAGE], data[:PAGE], data[2 * PAGE :]])
        assert checksum(other) != checksum(data)


def test_loading_takes_under_50_ms_of_cpu(saved: Path, tmp_path: Path) -> None:
    """In a fresh process, beyond numpy's import, with bytecode written: the middle of five."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    seconds = []
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(saved)], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        seconds.append(float(done.stdout))
    assert statistics.median(seconds[1:]) < 0.05
