"""The model as a program of its own: `model in0.npy ... out0.npy ...`. It reads and writes NumPy's files and needs libc alone.

Files are those that NumPy writes for dense row-major arrays (format 1 to 3, little endian); outputs appear whole, by rename.
Exit status: 0, 1 for what is wrong with a file or for the model, 2 for a wrong number of arguments.
"""

from __future__ import annotations

from string import Template

import numpy as np

from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.library.interface import Interface, show
from tensorlang.errors import BuildError

# what the functions below return, 1, 2, ...
FILE_TEXTS = (
    "cannot be opened", "is no .npy file", "holds another dtype than the model's", "is not in row-major order",
    "has another number of dimensions than the model's", "is cut short", "cannot be written",
)  # fmt: skip
_OPEN, _FORMAT, _DTYPE, _ORDER, _RANK, _SHORT, _WRITE = range(1, 8)

NPY_SOURCE = f"""{HEADER}


@kernel("i64 text, i64 stop, i64 pattern, i64* result")
def npy_find(ctx, text, stop, pattern, result):
    at = text
    found = 0
    while found == 0 and at < stop:
        k = 0
        while at + k < stop and i64(view(pattern + k, u8)[0]) != 0 and view(at + k, u8)[0] == view(pattern + k, u8)[0]:
            k += 1
        if i64(view(pattern + k, u8)[0]) == 0:
            found = at + k
        at += 1
    result[0] = found


@kernel("i64 data, i64 nbytes, i64 descr, i64 order, i64 dims, i64 dtype, i64 rank, i64 itemsize, i64* shape, i64* result")
def npy_parse(ctx, data, nbytes, descr, order, dims, dtype, rank, itemsize, shape, result):
    check(nbytes >= 16, {_FORMAT})
    check(i64(view(data, u8)[0]) == 147, {_FORMAT})
    check(i64(view(data + 1, u8)[0]) == 78, {_FORMAT})
    check(i64(view(data + 2, u8)[0]) == 85, {_FORMAT})
    low = i64(view(data + 8, u8)[0]) + 256 * i64(view(data + 9, u8)[0])
    start = data + 10
    if i64(view(data + 6, u8)[0]) >= 2:
        low += 65536 * i64(view(data + 10, u8)[0]) + 16777216 * i64(view(data + 11, u8)[0])
        start = data + 12
    stop = start + low
    check(stop <= data + nbytes, {_SHORT})
    npy_find(ctx, start, stop, descr, result)
    check(result[0] != 0, {_FORMAT})
    npy_find(ctx, result[0], minimum(result[0] + 8, stop), dtype, result)
    check(result[0] != 0, {_DTYPE})
    npy_find(ctx, start, stop, order, result)
    check(result[0] != 0, {_ORDER})
    npy_find(ctx, start, stop, dims, result)
    check(result[0] != 0, {_FORMAT})
    at = result[0]
    axis = 0
    count = 1
    number = -1
    going = 1
    while going == 1 and at < stop:
        c = i64(view(at, u8)[0])
        at += 1
        if c >= 48 and c <= 57:
            number = maximum(number, 0) * 10 + c - 48
        elif number >= 0:
            check(axis < rank, {_RANK})
            shape[axis] = number
            count = count * number
            axis += 1
            number = -1
        if c == 41:
            going = 0
    check(going == 0, {_FORMAT})
    check(axis == rank, {_RANK})
    check(count >= 0, {_SHORT})
    check(count <= (data + nbytes - stop) // itemsize, {_SHORT})
    result[0] = stop


@kernel("i64 text, i64 at, i64* result")
def npy_put(ctx, text, at, result):
    k = 0
    while i64(view(text + k, u8)[0]) != 0:
        view(at + k, u8)[0] = view(text + k, u8)[0]
        k += 1
    result[0] = at + k


@kernel("i64 before, i64 dtype, i64 order, i64 rank, i64* shape, i64 buffer, i64* result")
def npy_header(ctx, before, dtype, order, rank, shape, buffer, result):
    npy_put(ctx, before, buffer + 10, result)
    npy_put(ctx, dtype, result[0], result)
    npy_put(ctx, order, result[0], result)
    at = result[0]
    for axis in range(rank):
        size = shape[axis]
        power = 1
        while size // power >= 10:
            power = power * 10
        while power > 0:
            view(at, u8)[0] = u8(48 + size // power % 10)
            at += 1
            power = power // 10
        view(at, u8)[0] = u8(44)
        at += 1
    view(at, u8)[0] = u8(41)
    view(at + 1, u8)[0] = u8(125)
    at += 2
    while (at + 1 - buffer) % 64 != 0:
        view(at, u8)[0] = u8(32)
        at += 1
    view(at, u8)[0] = u8(10)
    total = at + 1 - buffer
    view(buffer, u8)[0] = u8(147)
    view(buffer + 1, u8)[0] = u8(78)
    view(buffer + 2, u8)[0] = u8(85)
    view(buffer + 3, u8)[0] = u8(77)
    view(buffer + 4, u8)[0] = u8(80)
    view(buffer + 5, u8)[0] = u8(89)
    view(buffer + 6, u8)[0] = u8(1)
    view(buffer + 7, u8)[0] = u8(0)
    view(buffer + 8, u8)[0] = u8((total - 10) % 256)
    view(buffer + 9, u8)[0] = u8((total - 10) // 256)
    result[0] = total
"""

_TEXT = r"""
declare i32 @rename(ptr, ptr)
declare i32 @unlink(ptr)
declare $w @strlen(ptr)
declare $w @write(i32, ptr, $w)
declare i32 @npy_parse(ptr, i64, i64, i64, i64, i64, i64, i64, i64, ptr, ptr)
declare i32 @npy_header(ptr, i64, i64, i64, i64, ptr, i64, ptr)
declare i32 @npy_put(ptr, i64, i64, ptr)


define internal void @say(ptr %text) {
  %n = call $w @strlen(ptr %text)
  %k = call $w @write(i32 2, ptr %text, $w %n)
  ret void
}

define internal i32 @complain(ptr %about, ptr %text, i32 %status) {
  call void @say(ptr %about)
  call void @say(ptr @colon)
  call void @say(ptr %text)
  call void @say(ptr @newline)
  ret i32 %status
}

define internal i32 @file_problem(ptr %path, i32 %status) {
  %k = sub i32 %status, 1
  %at = getelementptr i32, ptr @file_offsets, i32 %k
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @file_texts, i32 %offset
  %r = call i32 @complain(ptr %path, ptr %text, i32 1)
  ret i32 %r
}

define internal i32 @npy_input(ptr %path, ptr %dtype, i64 %rank, i64 %itemsize, ptr %shape, ptr %result) {
  %start = alloca i64
  %file = call i32 (ptr, i32, ...) @open(ptr %path, i32 524288)
  %failed = icmp slt i32 %file, 0
  br i1 %failed, label %missing, label %measure
missing:
  ret i32 1
measure:
  %nbytes = call $w @lseek(i32 %file, $w 0, i32 2)
  %at = call ptr @mmap(ptr null, $w %nbytes, i32 1, i32 2, i32 %file, $w 0)
  %c = call i32 @close(i32 %file)
  %bad = icmp eq ptr %at, inttoptr ($w -1 to ptr)
  br i1 %bad, label %missing, label %parse
parse:
  %a = ptrtoint ptr %at to i64
  %d = ptrtoint ptr @descr_key to i64
  %o = ptrtoint ptr @order_key to i64
  %s = ptrtoint ptr @shape_key to i64
  %t = ptrtoint ptr %dtype to i64
  %n = call i64 @long($w %nbytes)
  %status = call i32 @npy_parse(ptr null, i64 %a, i64 %n, i64 %d, i64 %o, i64 %s, i64 %t, i64 %rank, i64 %itemsize,
                                ptr %shape, ptr %start)
  %data = load i64, ptr %start
  %p = inttoptr i64 %data to ptr
  store ptr %p, ptr %result
  ret i32 %status
}

define internal i1 @write_all(i32 %file, ptr %data, i64 %nbytes) {
  br label %next
next:
  %done = phi i64 [ 0, %0 ], [ %more, %some ]
  %left = sub i64 %nbytes, %done
  %end = icmp sle i64 %left, 0
  br i1 %end, label %whole, label %some
some:
  %offset = call $w @word(i64 %done)
  %count = call $w @word(i64 %left)
  %at = getelementptr i8, ptr %data, $w %offset
  %got = call $w @write(i32 %file, ptr %at, $w %count)
  %wide = call i64 @long($w %got)
  %more = add i64 %done, %wide
  %ok = icmp sgt i64 %wide, 0
  br i1 %ok, label %next, label %broken
whole:
  ret i1 true
broken:
  ret i1 false
}

define internal i32 @npy_output(ptr %path, ptr %dtype, i64 %rank, i64 %nbytes, ptr %shape, ptr %data) {
  %header = alloca [1024 x i8], align 16
  %length = alloca i64
  %h = ptrtoint ptr %header to i64
  %b = ptrtoint ptr @header_start to i64
  %t = ptrtoint ptr %dtype to i64
  %o = ptrtoint ptr @header_order to i64
  %s0 = call i32 @npy_header(ptr null, i64 %b, i64 %t, i64 %o, i64 %rank, ptr %shape, i64 %h, ptr %length)
  %total = load i64, ptr %length
  %plen = call $w @strlen(ptr %path)
  %room = add $w %plen, 72
  %rounded = and $w %room, -64
  %temporary = call ptr @aligned_alloc($w 64, $w %rounded)
  %none = icmp eq ptr %temporary, null
  br i1 %none, label %broken, label %name
name:
  %pi = ptrtoint ptr %path to i64
  %ti = ptrtoint ptr %temporary to i64
  %si = ptrtoint ptr @suffix to i64
  %s1 = call i32 @npy_put(ptr null, i64 %pi, i64 %ti, ptr %length)
  %end = load i64, ptr %length
  %s2 = call i32 @npy_put(ptr null, i64 %si, i64 %end, ptr %length)
  %last = load i64, ptr %length
  %z = inttoptr i64 %last to ptr
  store i8 0, ptr %z
  %file = call i32 (ptr, i32, ...) @open(ptr %temporary, i32 524865, i32 420)
  %failed = icmp slt i32 %file, 0
  br i1 %failed, label %release, label %head
head:
  %w0 = call i1 @write_all(i32 %file, ptr %header, i64 %total)
  %w1 = call i1 @write_all(i32 %file, ptr %data, i64 %nbytes)
  %c = call i32 @close(i32 %file)
  %both = and i1 %w0, %w1
  br i1 %both, label %move, label %drop
move:
  %m = call i32 @rename(ptr %temporary, ptr %path)
  %moved = icmp eq i32 %m, 0
  br i1 %moved, label %fine, label %drop
fine:
  call void @free(ptr %temporary)
  ret i32 0
drop:
  %u = call i32 @unlink(ptr %temporary)
  br label %release
release:
  call void @free(ptr %temporary)
  br label %broken
broken:
  ret i32 7
}
"""


_CONSTANTS = {
    "descr_key": "'descr': '", "order_key": "'fortran_order': False", "shape_key": "'shape': (", "suffix": ".tmp",
    "header_start": "{'descr': '", "header_order": ", 'fortran_order': False, 'shape': (", "colon": ": ", "newline": "\n",
}  # fmt: skip


def npy_dtype(name: str) -> str:
    """How NumPy's files write a dtype.

    Raises:
        BuildError: they have no word for it.
    """
    try:
        text = np.dtype(name).str
    except TypeError:
        text = ""
    if not text or text[0] not in "<|":
        raise BuildError(f"an executable reads and writes .npy files, which have no dtype {name}; export a library instead")
    return text


def program_text(interface: Interface, pointer_bits: int) -> str:
    """LLVM text of `main` and what it needs beside the library's functions."""
    p = interface.prefix
    lines = [Template(_TEXT).substitute(w=f"i{pointer_bits}")]
    lines += [_constant(name, text) for name, text in _CONSTANTS.items()]
    offsets, block = [], ""
    for text in FILE_TEXTS:
        offsets.append(len(block))
        block += text + "\0"
    usage = " ".join(["usage:", p.removeprefix("tl_"), *(f"{_word(t.name)}.npy" for t in interface.tensors)])
    notes = [f"  {t.name}: {t.dtype}[{', '.join(show(d) for d in t.shape)}]" for t in interface.tensors]
    lines.append(_constant("usage", "\n".join([usage, *notes, ""])))
    lines.append(_constant("file_texts", block.removesuffix("\0")))
    lines.append(f"@file_offsets = internal constant [{len(offsets)} x i32] [{', '.join(f'i32 {o}' for o in offsets)}]")
    lines += [_constant(f"dtype{k}", npy_dtype(t.dtype) + "'") for k, t in enumerate(interface.tensors)]
    lines.append(_constant("model_name", p.removeprefix("tl_")))
    num_inputs, num_outputs = len(interface.inputs), len(interface.outputs)
    lines += [
        "define i32 @main(i32 %argc, ptr %argv) {",
        f"  %inputs = alloca [{max(1, num_inputs)} x ptr], align 16",
        f"  %outputs = alloca [{max(1, num_outputs)} x ptr], align 16",
        f"  %sizes = alloca [{max(1, interface.input_dims)} x i64], align 16",
        f"  %shapes = alloca [{max(1, interface.output_dims)} x i64], align 16",
        "  %instance = alloca ptr, align 8",
        f"  %right = icmp eq i32 %argc, {1 + num_inputs + num_outputs}",
        "  br i1 %right, label %read0, label %misused",
        "misused:",
        "  call void @say(ptr @usage)",
        "  ret i32 2",
    ]
    position = 0
    for k, tensor in enumerate(interface.inputs):
        rank = len(tensor.shape)
        lines += [
            f"read{k}:",
            *_path(k, f"in{k}"),
            f"  %sizes{k} = getelementptr i64, ptr %sizes, i32 {position}",
            f"  %place{k} = getelementptr ptr, ptr %inputs, i32 {k}",
            f"  %status{k} = call i32 @npy_input(ptr %in{k}, ptr @dtype{k}, i64 {rank}, i64 {tensor.itemsize}, "
            f"ptr %sizes{k}, ptr %place{k})",
            f"  %ok{k} = icmp eq i32 %status{k}, 0",
            f"  br i1 %ok{k}, label %read{k + 1}, label %unread{k}",
            f"unread{k}:",
            f"  %problem{k} = call i32 @file_problem(ptr %in{k}, i32 %status{k})",
            f"  ret i32 %problem{k}",
        ]
        position += rank
    lines += [
        f"read{num_inputs}:",
        f"  %created = call i32 @{p}_create(ptr %instance)",
        "  %c_ok = icmp eq i32 %created, 0",
        "  br i1 %c_ok, label %plan, label %failed",
        "plan:",
        "  %m = load ptr, ptr %instance",
        f"  %threads = call i32 @{p}_set_threads(ptr %m, i32 0)",
        f"  %planned = call i32 @{p}_output_shapes(ptr %m, ptr %sizes, ptr %shapes)",
        "  %p_ok = icmp eq i32 %planned, 0",
        "  br i1 %p_ok, label %room0, label %failed",
    ]
    position = 0
    for k, tensor in enumerate(interface.outputs):
        lines += [f"room{k}:", f"  %out{k} = getelementptr ptr, ptr %outputs, i32 {k}"]
        lines += _nbytes(f"n{k}", position, len(tensor.shape), tensor.itemsize)
        if tensor.told:
            lines += [f"  store ptr null, ptr %out{k}", f"  br label %room{k + 1}"]
        else:
            lines += [
                f"  %padded{k} = add i64 %n{k}, 64",
                f"  %whole{k} = and i64 %padded{k}, -64",
                f"  %bytes{k} = call i{pointer_bits} @word(i64 %whole{k})",
                f"  %memory{k} = call ptr @aligned_alloc(i{pointer_bits} 64, i{pointer_bits} %bytes{k})",
                f"  store ptr %memory{k}, ptr %out{k}",  # null is refused by run
                f"  br label %room{k + 1}",
            ]
        position += len(tensor.shape)
    lines += [
        f"room{num_outputs}:",
        f"  %ran = call i32 @{p}_run(ptr %m, ptr %inputs, ptr %sizes, ptr %outputs, ptr %shapes, ptr null, i64 0)",
        "  %r_ok = icmp eq i32 %ran, 0",
        "  br i1 %r_ok, label %write0, label %failed",
        "failed:",
        f"  %status = phi i32 [ %created, %read{num_inputs} ], [ %planned, %plan ], [ %ran, %room{num_outputs} ]",
        f"  %text = call ptr @{p}_status_text(i32 %status)",
        "  %f = call i32 @complain(ptr @model_name, ptr %text, i32 1)",
        "  ret i32 %f",
    ]
    position = 0
    for k, tensor in enumerate(interface.outputs):
        rank = len(tensor.shape)
        lines += [f"write{k}:", *_path(num_inputs + k, f"to{k}"), *_nbytes(f"size{k}", position, rank, tensor.itemsize)]
        lines += [
            f"  %shape{k} = getelementptr i64, ptr %shapes, i32 {position}",
            f"  %from{k} = load ptr, ptr %out{k}",
            f"  %wrote{k} = call i32 @npy_output(ptr %to{k}, ptr @dtype{num_inputs + k}, i64 {rank}, i64 %size{k}, "
            f"ptr %shape{k}, ptr %from{k})",
            f"  call void @free(ptr %from{k})",
            f"  %w_ok{k} = icmp eq i32 %wrote{k}, 0",
            f"  br i1 %w_ok{k}, label %write{k + 1}, label %unwritten{k}",
            f"unwritten{k}:",
            f"  %lost{k} = call i32 @file_problem(ptr %to{k}, i32 %wrote{k})",
            f"  ret i32 %lost{k}",
        ]
        position += rank
    lines += [f"write{num_outputs}:", f"  call void @{p}_destroy(ptr %m)", "  ret i32 0", "}"]
    return "\n".join(lines) + "\n"


def _path(number: int, name: str) -> list[str]:
    """The argument after the program's name and `number` others."""
    return [f"  %{name}_at = getelementptr ptr, ptr %argv, i32 {number + 1}", f"  %{name} = load ptr, ptr %{name}_at"]


def _nbytes(name: str, position: int, rank: int, itemsize: int) -> list[str]:
    """%name: bytes of the output whose sizes begin at `position`."""
    lines, before = [], str(itemsize)
    for axis in range(rank):
        own = f"%{name}_{axis}" if axis < rank - 1 else f"%{name}"
        lines += [
            f"  %{name}_at{axis} = getelementptr i64, ptr %shapes, i32 {position + axis}",
            f"  %{name}_d{axis} = load i64, ptr %{name}_at{axis}",
            f"  {own} = mul i64 {before}, %{name}_d{axis}",
        ]
        before = own
    return lines or [f"  %{name} = add i64 0, {itemsize}"]


def _constant(name: str, text: str) -> str:
    data = text.encode() + b"\0"
    content = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in data)
    return f'@{name} = internal constant [{len(data)} x i8] c"{content}"'


def _word(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
