"""The linker: what it writes is loaded by the system's loader, and agrees with what a linker's reader says of it."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tensorlang.codegen.elf import link_shared, read_object
from tensorlang.codegen.native.target import initialize_llvm
from tensorlang.errors import BuildError

# a table of addresses, zeroed memory, a constant, a call into libc, a payload of the linker's, a call between the objects
FIRST = """
@table = internal global [2 x ptr] [ptr @twice, ptr @seven]
@seven = internal constant i64 7
@count = internal global i64 0
@far = internal global [100000 x i8] zeroinitializer
@payload = external global [4 x i64]
declare i64 @llabs(i64)
declare i64 @other(i64)
define internal i64 @twice(i64 %x) { %y = add i64 %x, %x
  ret i64 %y }
define i64 @entry(i64 %x) {
  %f = load ptr, ptr @table
  %a = call i64 %f(i64 %x)
  %p = load ptr, ptr getelementptr ([2 x ptr], ptr @table, i64 0, i64 1)
  %b = load i64, ptr %p
  %c = call i64 @llabs(i64 %a)
  %d = add i64 %b, %c
  %e = load i64, ptr getelementptr ([4 x i64], ptr @payload, i64 0, i64 2)
  %g = add i64 %d, %e
  %n = load i64, ptr @count
  %m = add i64 %n, 1
  store i64 %m, ptr @count
  %z = load i8, ptr getelementptr ([100000 x i8], ptr @far, i64 0, i64 99999)
  %w = sext i8 %z to i64
  %h = add i64 %g, %m
  %i = add i64 %h, %w
  %r = call i64 @other(i64 %i)
  ret i64 %r
}
"""
SECOND = """
define i64 @other(i64 %x) { %y = mul i64 %x, 10
  ret i64 %y }
"""
TRIPLES = {
    "x86_64": ("x86_64-unknown-linux-gnu", ""),
    "aarch64": ("aarch64-unknown-linux-gnu", ""),
    "riscv64": ("riscv64-unknown-linux-gnu", "+m,+a,+f,+d"),
    "armv7": ("armv7-unknown-linux-gnueabihf", "+neon"),
}


def compiled(text: str, machine: str) -> bytes:
    initialize_llvm()
    triple, features = TRIPLES[machine]
    module = llvm.parse_assembly(text)
    module.triple = triple
    target = llvm.Target.from_triple(triple).create_target_machine(features=features, reloc="pic", codemodel="default")
    return bytes(target.emit_object(module))


def library(machine: str) -> bytes:
    payload = struct.pack("<4q", 1, 2, 1000, 4)
    objects = [compiled(FIRST, machine), compiled(SECOND, machine)]
    return link_shared(objects, ["entry", "payload"], payloads={"payload": payload}, soname="libfirst.so")


def test_the_loader_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "libfirst.so"
    path.write_bytes(library("x86_64"))
    loaded = ctypes.CDLL(str(path))
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(("entry", loaded))
    assert [entry(-3), entry(-3), entry(5)] == [(6 + 7 + 1000 + n) * 10 for n in (1, 2)] + [(10 + 7 + 1000 + 3) * 10]
    payload = ctypes.c_int64.in_dll(loaded, "payload")
    assert payload.value == 1 and ctypes.addressof(payload) % 4096 == 0


@pytest.mark.parametrize("machine", TRIPLES)
def test_segments_are_where_the_file_says(machine: str) -> None:
    code = library(machine)
    assert code == library(machine), "the same objects give the same bytes"
    if code[4] == 2:
        count = struct.unpack_from("<H", code, 56)[0]
        programs = [struct.unpack_from("<IIQQQQQQ", code, 64 + 56 * n) for n in range(count)]
    else:
        count = struct.unpack_from("<H", code, 44)[0]
        narrow = [struct.unpack_from("<8I", code, 52 + 32 * n) for n in range(count)]
        programs = [(p[0], p[6], p[1], p[2], p[3], p[4], p[5], p[7]) for p in narrow]
    loads = [p for p in programs if p[0] == 1]
    assert [p[1] for p in loads] == [4, 5, 6], "constants, code, data: never writable and executable"
    for _, _, offset, address, _, size, memory, alignment in loads:
        assert offset == address and offset % alignment == 0 and offset + size <= len(code) and memory >= size
    assert loads[2][6] - loads[2][5] >= 100000, "zeros are not in the file"
    assert len(code) < 5 * loads[0][7] + 100000


# That the values are right is shown by running the libraries: here for this machine, elsewhere under emulation.
@pytest.mark.parametrize("machine", TRIPLES)
def test_every_place_is_patched(machine: str) -> None:
    given = read_object(compiled(FIRST, machine))
    places = [(s.data, r) for s in given.sections.values() for r in s.relocations]
    assert places
    code = library(machine)
    text = next(s for s in given.sections.values() if s.name == ".text")
    start = code.find(text.data[: text.relocations[0].offset]) if text.relocations[0].offset >= 8 else -1
    if start >= 0:
        for r in text.relocations:
            if r.kind != 51:
                before, after = (d[n : n + 8] for d, n in ((text.data, r.offset), (code, start + r.offset)))
                assert before != after, f"relocation {r.kind} at {r.offset:#x} was left alone"


def test_what_cannot_be_linked_is_refused() -> None:
    first, second = compiled(FIRST, "x86_64"), compiled(SECOND, "x86_64")
    with pytest.raises(BuildError, match="other is defined twice"):
        link_shared([second, second], ["other"])
    with pytest.raises(BuildError, match="absent is to be exported"):
        link_shared([second], ["absent"])
    with pytest.raises(BuildError, match="all for one machine"):
        link_shared([second, compiled(SECOND, "aarch64")], ["other"])
    with pytest.raises(BuildError, match="ELF objects"):
        link_shared([b"MZ garbage" * 10], [])
    assert link_shared([first, second], ["entry"], payloads={"payload": bytes(32)})


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_c_program_links_against_it(tmp_path: Path) -> None:
    (tmp_path / "libfirst.so").write_bytes(library("x86_64"))
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\nlong entry(long);\nextern const long payload[4];\n"
        'int main(void) { printf("%ld %ld\\n", entry(-3), payload[2]); return 0; }\n'
    )
    build = ["gcc", "-fPIC", "main.c", "-L.", "-lfirst", "-Wl,-rpath,$ORIGIN", "-o", "main"]
    subprocess.run(build, cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True, env={})
    assert done.stdout == f"{(6 + 7 + 1000 + 1) * 10} 1000\n"
