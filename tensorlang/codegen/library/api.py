"""The C functions of a library, as LLVM text around the emitted functions: they check pointers, keep the order of a run,
clean up after a failure, and talk to libc. An instance is the context that compiled code receives, and what follows it:

    bytes 0      the context's slots (`abi.Slot`); among them the pool, which is the instance's own
    64           status of the last failure
    72           address of the weights
    80, 88       mapping of a weights file: address, length
    128          the pool's state (`abi.PoolWord`)
    33664        handles of the workers

Nothing else is writable: two instances, and two libraries, share no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template

from tensorlang.codegen.intrinsics.abi import ABI_VERSION, MAX_THREADS, POOL_WORDS, WORKER_STRIDE, PoolWord, Slot
from tensorlang.codegen.library.interface import STATUS_TEXTS, UNKNOWN, Interface, Status, show
from tensorlang.codegen.library.planning import Frame
from tensorlang.codegen.native.target import CpuTarget

_LAST_ERROR, _WEIGHTS, _MAPPED, _MAPPED_BYTES, _STATE = 64, 72, 80, 88, 128
_HANDLES = _STATE + POOL_WORDS * 8
_INSTANCE_BYTES = _HANDLES + MAX_THREADS * 8
_SPIN_NS = 5_000_000  # how long an idle worker spins before it sleeps
_NPROCESSORS = 84  # _SC_NPROCESSORS_ONLN of Linux


def api_names(interface: Interface) -> list[str]:
    """The C functions that a library exports."""
    names = (
        "create", "create_from_memory", "create_from_file", "destroy", "set_threads", "threads", "output_shapes",
        "workspace_bytes", "run", "free", "last_error", "status_text", "input_name", "input_dtype", "input_rank", "input_size",
        "input_dimension", "output_name", "output_dtype", "output_rank", "output_size", "output_dimension",
    )  # fmt: skip
    return [f"{interface.prefix}_{name}" for name in names]


def api_text(interface: Interface, target: CpuTarget, messages: Sequence[str], *, weights: bool) -> str:
    """LLVM text of the C functions.

    Args:
        messages: of the statuses that follow the model's own checks.
        weights: whether the weights are part of the library, as symbol <prefix>_weights.
    """
    bits = target.pointer_bits
    frame = Frame.of(interface)
    words = {
        "p": interface.prefix, "w": f"i{bits}", "frame_words": frame.words, "outputs_at": frame.outputs * 8,
        "dims_at": frame.dims * 8, "arena_at": frame.arena * 8, "instance": _INSTANCE_BYTES, "last_error": _LAST_ERROR,
        "weights_at": _WEIGHTS, "mapped_at": _MAPPED, "mapped_bytes_at": _MAPPED_BYTES, "state": _STATE, "handles": _HANDLES,
        "handle": bits // 8, "abi": ABI_VERSION, "workers": PoolWord.WORKERS * 8, "stride": WORKER_STRIDE * 8,
        "threads_at": _STATE + PoolWord.THREADS * 8, "spin_at": _STATE + PoolWord.SPIN * 8, "spin_ns": _SPIN_NS * 1000,
        "nprocessors": _NPROCESSORS, "max_threads": MAX_THREADS, "num_threads_slot": Slot.NUM_THREADS * 8,
        "parallel_slot": Slot.PARALLEL_FOR * 8, "allocate_slot": Slot.ALLOCATE * 8, "release_slot": Slot.RELEASE * 8,
        "pool_slot": Slot.POOL * 8, "weights_bytes": interface.weights_bytes, "weights_words": interface.weights_bytes // 8,
        "weights_sum": interface.weights_sum, "builtin": f"@{interface.prefix}_weights" if weights else "null",
        "no_shapes": 0 if interface.is_static else int(Status.NO_SHAPES),
        **{status.name.lower(): int(status) for status in Status},
    }  # fmt: skip
    parts = [_TEMPLATE, _WIDTHS[bits], _machine_check(target)]
    if weights:
        parts.append(f"@{interface.prefix}_weights = external hidden constant [{interface.weights_bytes} x i8], align 4096")
    text = Template("\n".join(parts)).substitute(words)
    return "\n".join([text, *_tables(interface, messages), *_descriptions(interface)]) + "\n"


_TEMPLATE = """
declare ptr @aligned_alloc($w, $w)
declare void @free(ptr)
declare i32 @open(ptr, i32, ...)
declare $w @lseek(i32, $w, i32)
declare ptr @mmap(ptr, $w, i32, i32, i32, $w)
declare i32 @munmap(ptr, $w)
declare i32 @close(i32)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join($w, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @clock_gettime(i32, ptr)
declare $w @sysconf(i32)
declare void @llvm.memset.p0.$w(ptr, i8, $w, i1)

declare i32 @"tl.program"(ptr, i64, i64, ptr, ptr, ptr)
declare i32 @library_enter(ptr, i64, ptr, i64, ptr)
declare i32 @library_leave(ptr, i64, ptr)
declare i32 @library_report(ptr, ptr, ptr)
declare i32 @library_sum(ptr, ptr, i64, ptr)
declare i32 @pool_worker(ptr)
declare i32 @pool_wake(ptr, i64)
declare i32 @pool_parallel_for(ptr, i64, i64, i64)
declare i32 @pool_acquire(ptr, i64)
declare i32 @pool_release(ptr, i64)
declare i32 @pool_spin(ptr, i64)
declare i32 @pool_allocate(ptr, i64, ptr)
declare i32 @pool_free(ptr, i64)

; -- failures -------------------------------------------------------------------------------------------------------
define internal i32 @note(ptr %m, i32 %status) {
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %keep, label %done
keep:
  %at = getelementptr i8, ptr %m, $w $last_error
  store atomic i32 %status, ptr %at monotonic, align 8
  br label %done
done:
  ret i32 %status
}

define ptr @${p}_last_error(ptr %m) {
  %none = icmp eq ptr %m, null
  br i1 %none, label %null, label %read
null:
  %ok = call ptr @${p}_status_text(i32 0)
  ret ptr %ok
read:
  %at = getelementptr i8, ptr %m, $w $last_error
  %status = load atomic i32, ptr %at monotonic, align 8
  %text = call ptr @${p}_status_text(i32 %status)
  ret ptr %text
}

; -- instances ------------------------------------------------------------------------------------------------------
define internal i32 @new(ptr %result, ptr %weights) {
  %lacks = call i32 @machine()
  %bad = icmp ne i32 %lacks, 0
  br i1 %bad, label %refuse, label %make
refuse:
  ret i32 %lacks
make:
  %m = call ptr @aligned_alloc($w 128, $w $instance)
  %none = icmp eq ptr %m, null
  br i1 %none, label %empty, label %fill
empty:
  ret i32 $out_of_memory
fill:
  call void @llvm.memset.p0.$w(ptr align 128 %m, i8 0, $w $instance, i1 false)
  store i64 $abi, ptr %m, align 8
  call void @set(ptr %m, $w $parallel_slot, ptr @pool_parallel_for)
  call void @set(ptr %m, $w $allocate_slot, ptr @pool_allocate)
  call void @set(ptr %m, $w $release_slot, ptr @pool_free)
  %state = getelementptr i8, ptr %m, $w $state
  call void @set(ptr %m, $w $pool_slot, ptr %state)
  call void @set(ptr %m, $w $weights_at, ptr %weights)
  %threads = getelementptr i8, ptr %m, $w $threads_at
  store i64 1, ptr %threads, align 8
  %slot = getelementptr i8, ptr %m, $w $num_threads_slot
  store i64 1, ptr %slot, align 8
  store ptr %m, ptr %result
  ret i32 0
}

define internal void @set(ptr %m, $w %at, ptr %value) {
  %place = getelementptr i8, ptr %m, $w %at
  %word = ptrtoint ptr %value to i64
  store i64 %word, ptr %place, align 8
  ret void
}

define i32 @${p}_create(ptr %result) {
  %none = icmp eq ptr %result, null
  br i1 %none, label %null, label %empty
null:
  ret i32 $invalid
empty:
  store ptr null, ptr %result
  %missing = icmp eq ptr $builtin, null
  br i1 %missing, label %bare, label %make
bare:
  ret i32 $weights
make:
  %status = call i32 @new(ptr %result, ptr $builtin)
  ret i32 %status
}

define i32 @${p}_create_from_memory(ptr %result, ptr %weights, i64 %nbytes) {
  %none = icmp eq ptr %result, null
  br i1 %none, label %null, label %empty
null:
  ret i32 $invalid
empty:
  store ptr null, ptr %result
  %nothing = icmp eq ptr %weights, null
  br i1 %nothing, label %null, label %measure
measure:
  %address = ptrtoint ptr %weights to $w
  %low = and $w %address, 63
  %skewed = icmp ne $w %low, 0
  %short = icmp ne i64 %nbytes, $weights_bytes
  %unfit = or i1 %skewed, %short
  br i1 %unfit, label %refuse, label %sum
refuse:
  ret i32 $weights
sum:
  %total = alloca i64
  %s = call i32 @library_sum(ptr null, ptr %weights, i64 $weights_words, ptr %total)
  %found = load i64, ptr %total
  %same = icmp eq i64 %found, $weights_sum
  br i1 %same, label %make, label %refuse
make:
  %status = call i32 @new(ptr %result, ptr %weights)
  ret i32 %status
}

define i32 @${p}_create_from_file(ptr %result, ptr %path) {
  %none = icmp eq ptr %result, null
  %nowhere = icmp eq ptr %path, null
  %either = or i1 %none, %nowhere
  br i1 %either, label %null, label %start
null:
  ret i32 $invalid
start:
  store ptr null, ptr %result
  %file = call i32 (ptr, i32, ...) @open(ptr %path, i32 524288)
  %failed = icmp slt i32 %file, 0
  br i1 %failed, label %refuse, label %length
refuse:
  ret i32 $file
length:
  %nbytes = call $w @lseek(i32 %file, $w 0, i32 2)
  %wrong = icmp ne $w %nbytes, $weights_bytes
  br i1 %wrong, label %shut, label %map
shut:
  %c0 = call i32 @close(i32 %file)
  ret i32 $weights
map:
  %at = call ptr @mmap(ptr null, $w %nbytes, i32 1, i32 2, i32 %file, $w 0)
  %c1 = call i32 @close(i32 %file)
  %bad = icmp eq ptr %at, inttoptr ($w -1 to ptr)
  br i1 %bad, label %refuse, label %make
make:
  %status = call i32 @${p}_create_from_memory(ptr %result, ptr %at, i64 $weights_bytes)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %keep, label %drop
drop:
  %u = call i32 @munmap(ptr %at, $w %nbytes)
  ret i32 %status
keep:
  %m = load ptr, ptr %result
  call void @set(ptr %m, $w $mapped_at, ptr %at)
  %place = getelementptr i8, ptr %m, $w $mapped_bytes_at
  store i64 $weights_bytes, ptr %place, align 8
  ret i32 0
}

define void @${p}_destroy(ptr %m) {
  %none = icmp eq ptr %m, null
  br i1 %none, label %done, label %join
join:
  %s = call i32 @${p}_set_threads(ptr %m, i32 1)
  %place = getelementptr i8, ptr %m, $w $mapped_at
  %word = load i64, ptr %place, align 8
  %mapped = icmp ne i64 %word, 0
  br i1 %mapped, label %unmap, label %give
unmap:
  %at = inttoptr i64 %word to ptr
  %u = call i32 @munmap(ptr %at, $w $weights_bytes)
  br label %give
give:
  call void @free(ptr %m)
  br label %done
done:
  ret void
}

; -- threads --------------------------------------------------------------------------------------------------------
define i32 @${p}_threads(ptr %m) {
  %at = getelementptr i8, ptr %m, $w $threads_at
  %n = load atomic i64, ptr %at acquire, align 8
  %count = trunc i64 %n to i32
  ret i32 %count
}

define i32 @${p}_set_threads(ptr %m, i32 %asked) {
  %old = alloca [128 x i8], align 16
  %all = alloca [128 x i8], align 16
  %none = icmp eq ptr %m, null
  br i1 %none, label %null, label %choose
null:
  ret i32 $invalid
choose:
  %auto = icmp eq i32 %asked, 0
  br i1 %auto, label %online, label %fixed
online:
  %n = call $w @sysconf(i32 $nprocessors)
  %n32 = trunc $w %n to i32
  %some = call i32 @llvm.smax.i32(i32 %n32, i32 1)
  %few = call i32 @llvm.smin.i32(i32 %some, i32 $max_threads)
  br label %fixed
fixed:
  %wanted = phi i32 [ %asked, %choose ], [ %few, %online ]
  %low = icmp slt i32 %wanted, 1
  %high = icmp sgt i32 %wanted, $max_threads
  %wild = or i1 %low, %high
  br i1 %wild, label %refuse, label %begin
refuse:
  %r = call i32 @note(ptr %m, i32 $threads)
  ret i32 %r
begin:
  %count = sext i32 %wanted to i64
  %pool = getelementptr i8, ptr %m, $w $state
  %state = ptrtoint ptr %pool to i64
  %threads = getelementptr i8, ptr %m, $w $threads_at
  %spin = call i64 @spins()
  %a = call i32 @pool_acquire(ptr null, i64 %state)
  %spin_at = getelementptr i8, ptr %m, $w $spin_at
  store atomic i64 %spin, ptr %spin_at release, align 8
  %have = load atomic i64, ptr %threads acquire, align 8
  %surplus = icmp slt i64 %count, %have
  br i1 %surplus, label %shrink, label %grow
shrink:
  store atomic i64 %count, ptr %threads release, align 8
  %wake = call i32 @pool_wake(ptr null, i64 %state)
  br label %join
join:
  %k = phi i64 [ %count, %shrink ], [ %k1, %join ]
  %handle_at = call ptr @handle(ptr %m, i64 %k)
  %handle = load $w, ptr %handle_at
  %j = call i32 @pthread_join($w %handle, ptr null)
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, %have
  br i1 %more, label %join, label %finish
grow:
  call void @llvm.memset.p0.$w(ptr %all, i8 -1, $w 128, i1 false)
  %b = call i32 @pthread_sigmask(i32 0, ptr %all, ptr %old)
  br label %next
next:
  %i = phi i64 [ %have, %grow ], [ %i1, %started ]
  %enough = icmp sge i64 %i, %count
  br i1 %enough, label %grown, label %start
start:
  %i1 = add i64 %i, 1
  %offset = mul i64 %i, $stride
  %offset_w = call $w @word(i64 %offset)
  %records = getelementptr i8, ptr %pool, $w $workers
  %record = getelementptr i8, ptr %records, $w %offset_w
  store i64 0, ptr %record, align 8
  %record1 = getelementptr i64, ptr %record, $w 1
  store i64 %state, ptr %record1, align 8
  %record2 = getelementptr i64, ptr %record, $w 2
  store i64 %i, ptr %record2, align 8
  store atomic i64 %i1, ptr %threads release, align 8
  %where = call ptr @handle(ptr %m, i64 %i)
  %error = call i32 @pthread_create(ptr %where, ptr null, ptr @pool_worker, ptr %record)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %fewer, label %started
started:
  br label %next
fewer:
  store atomic i64 %i, ptr %threads release, align 8
  br label %grown
grown:
  %status = phi i32 [ 0, %next ], [ $threads, %fewer ]
  %c = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  br label %finish
finish:
  %result = phi i32 [ 0, %join ], [ %status, %grown ]
  %now = load atomic i64, ptr %threads acquire, align 8
  %slot = getelementptr i8, ptr %m, $w $num_threads_slot
  store atomic i64 %now, ptr %slot release, align 8
  %d = call i32 @pool_release(ptr null, i64 %state)
  %e = call i32 @note(ptr %m, i32 %result)
  ret i32 %e
}

declare i32 @llvm.smax.i32(i32, i32)
declare i32 @llvm.smin.i32(i32, i32)
declare i64 @llvm.smax.i64(i64, i64)

define internal ptr @handle(ptr %m, i64 %k) {
  %offset = mul i64 %k, $handle
  %offset_w = call $w @word(i64 %offset)
  %first = getelementptr i8, ptr %m, $w $handles
  %at = getelementptr i8, ptr %first, $w %offset_w
  ret ptr %at
}

; how many pauses make the time that a worker spins before it sleeps: a pause is 5 ns on one machine, 50 on the next
define internal i64 @spins() {
  %before = call i64 @clock()
  %s = call i32 @pool_spin(ptr null, i64 1000)
  %after = call i64 @clock()
  %ns = sub i64 %after, %before
  %sane = call i64 @llvm.smax.i64(i64 %ns, i64 1000)
  %spins = sdiv i64 $spin_ns, %sane
  ret i64 %spins
}

define internal i64 @clock() {
  %time = alloca [2 x $w], align 16
  %s = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load $w, ptr %time
  %second = getelementptr $w, ptr %time, $w 1
  %rest = load $w, ptr %second
  %a = call i64 @long($w %seconds)
  %b = call i64 @long($w %rest)
  %c = mul i64 %a, 1000000000
  %d = add i64 %c, %b
  ret i64 %d
}

; -- sizes ----------------------------------------------------------------------------------------------------------
define internal i32 @plan(ptr %m, ptr %inputs, ptr %shapes, ptr %outputs, ptr %frame) {
  %none = icmp eq ptr %shapes, null
  br i1 %none, label %fixed, label %given
fixed:
  %open = icmp ne i32 $no_shapes, 0
  br i1 %open, label %refuse, label %given
refuse:
  ret i32 $no_shapes
given:
  %sizes = phi ptr [ %shapes, %0 ], [ @sizes, %fixed ]
  %a = ptrtoint ptr %inputs to i64
  %b = ptrtoint ptr %outputs to i64
  %status = call i32 @library_enter(ptr %m, i64 %a, ptr %sizes, i64 %b, ptr %frame)
  ret i32 %status
}

define i32 @${p}_output_shapes(ptr %m, ptr %shapes, ptr %result) {
  %frame = alloca [$frame_words x i64], align 16
  %no_instance = icmp eq ptr %m, null
  %no_result = icmp eq ptr %result, null
  %none = or i1 %no_instance, %no_result
  br i1 %none, label %null, label %start
null:
  ret i32 $invalid
start:
  %status = call i32 @plan(ptr %m, ptr null, ptr %shapes, ptr null, ptr %frame)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %tell, label %done
tell:
  %r = call i32 @library_report(ptr null, ptr %frame, ptr %result)
  br label %done
done:
  %n = call i32 @note(ptr %m, i32 %status)
  ret i32 %n
}

define i32 @${p}_workspace_bytes(ptr %m, ptr %shapes, ptr %result) {
  %frame = alloca [$frame_words x i64], align 16
  %no_instance = icmp eq ptr %m, null
  %no_result = icmp eq ptr %result, null
  %none = or i1 %no_instance, %no_result
  br i1 %none, label %null, label %start
null:
  ret i32 $invalid
start:
  %status = call i32 @plan(ptr %m, ptr null, ptr %shapes, ptr null, ptr %frame)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %tell, label %done
tell:
  %at = getelementptr i8, ptr %frame, $w $arena_at
  %arena = load i64, ptr %at, align 8
  %whole = add i64 %arena, 64
  store i64 %whole, ptr %result, align 8
  br label %done
done:
  %n = call i32 @note(ptr %m, i32 %status)
  ret i32 %n
}

; -- a run ----------------------------------------------------------------------------------------------------------
define i32 @${p}_run(ptr %m, ptr %inputs, ptr %shapes, ptr %outputs, ptr %result, ptr %workspace, i64 %nbytes) {
  %frame = alloca [$frame_words x i64], align 16
  %got = alloca i64, align 8
  %no_instance = icmp eq ptr %m, null
  br i1 %no_instance, label %null, label %tables
null:
  ret i32 $invalid
tables:
  %no_inputs = icmp eq ptr %inputs, null
  %no_outputs = icmp eq ptr %outputs, null
  %neither = or i1 %no_inputs, %no_outputs
  br i1 %neither, label %missing, label %start
missing:
  %i = call i32 @note(ptr %m, i32 $invalid)
  ret i32 %i
start:
  %planned = call i32 @plan(ptr %m, ptr %inputs, ptr %shapes, ptr %outputs, ptr %frame)
  %p_ok = icmp eq i32 %planned, 0
  br i1 %p_ok, label %memory, label %end
memory:
  %arena_at = getelementptr i8, ptr %frame, $w $arena_at
  %arena = load i64, ptr %arena_at, align 8
  %own = icmp eq ptr %workspace, null
  br i1 %own, label %allocate, label %borrow
allocate:
  %a_status = call i32 @pool_allocate(ptr null, i64 %arena, ptr %got)
  %a_ok = icmp eq i32 %a_status, 0
  br i1 %a_ok, label %allocated, label %end
allocated:
  %made = load i64, ptr %got, align 8
  br label %go
borrow:
  %whole = add i64 %arena, 64
  %small = icmp slt i64 %nbytes, %whole
  br i1 %small, label %end, label %align
align:
  %address = ptrtoint ptr %workspace to i64
  %up = add i64 %address, 63
  %aligned = and i64 %up, -64
  br label %go
go:
  %room = phi i64 [ %made, %allocated ], [ %aligned, %align ]
  %weights_at = getelementptr i8, ptr %m, $w $weights_at
  %weights = load i64, ptr %weights_at, align 8
  %outputs_at = getelementptr i8, ptr %frame, $w $outputs_at
  %dims_at = getelementptr i8, ptr %frame, $w $dims_at
  %ran = call i32 @"tl.program"(ptr %m, i64 %room, i64 %weights, ptr %frame, ptr %outputs_at, ptr %dims_at)
  br i1 %own, label %give, label %after
give:
  %f = call i32 @pool_free(ptr null, i64 %room)
  br label %after
after:
  %r_ok = icmp eq i32 %ran, 0
  br i1 %r_ok, label %leave, label %end
leave:
  %o = ptrtoint ptr %outputs to i64
  %left = call i32 @library_leave(ptr %m, i64 %o, ptr %frame)
  %untold = icmp eq ptr %result, null
  br i1 %untold, label %end, label %tell
tell:
  %t = call i32 @library_report(ptr null, ptr %frame, ptr %result)
  br label %end
end:
  %status = phi i32 [ %planned, %start ], [ %a_status, %allocate ], [ $workspace, %borrow ], [ %ran, %after ], [ %left, %leave ], [ 0, %tell ]
  %n = call i32 @note(ptr %m, i32 %status)
  ret i32 %n
}

define void @${p}_free(ptr %memory) {
  call void @free(ptr %memory)
  ret void
}
"""

# between 8-byte words and the target's own
_WIDTHS = {
    64: """
define internal i64 @word(i64 %v) alwaysinline {
  ret i64 %v
}
define internal i64 @long(i64 %v) alwaysinline {
  ret i64 %v
}
""",
    32: """
define internal i32 @word(i64 %v) alwaysinline {
  %w = trunc i64 %v to i32
  ret i32 %w
}
define internal i64 @long(i32 %v) alwaysinline {
  %l = sext i32 %v to i64
  ret i64 %l
}
""",
}

# -- descriptions --------------------------------------------------------------------------------------------------


class _Strings:
    """Texts in one block, by their offsets: needs no relocation."""

    def __init__(self) -> None:
        self.block = bytearray()
        self.at: dict[str, int] = {}

    def add(self, text: str) -> int:
        if text not in self.at:
            self.at[text] = len(self.block)
            self.block += text.encode() + b"\0"
        return self.at[text]


def _array(name: str, type_: str, values: Iterable[int]) -> str:
    items = list(values) or [0]
    return f"@{name} = internal constant [{len(items)} x {type_}] [{', '.join(f'{type_} {v}' for v in items)}]"


def _tables(interface: Interface, messages: Sequence[str]) -> list[str]:
    strings = _Strings()
    statuses = ["ok", *interface.checks, *messages]
    texts = [strings.add(t) for t in (*statuses, *STATUS_TEXTS.values(), UNKNOWN)]
    tensors = interface.tensors
    sizes = [d for t in tensors for d in t.shape]
    starts = [sum(len(t.shape) for t in tensors[:k]) for k in range(len(tensors))]
    lines = [
        _array("status_texts", "i32", texts),
        _array("tensor_names", "i32", (strings.add(t.name) for t in tensors)),
        _array("tensor_dtypes", "i32", (strings.add(t.dtype) for t in tensors)),
        _array("tensor_ranks", "i32", (len(t.shape) for t in tensors)),
        _array("tensor_starts", "i32", starts),
        _array("tensor_sizes", "i64", (d if isinstance(d, int) else -1 for d in sizes)),
        _array("tensor_dimensions", "i32", (strings.add("" if isinstance(d, int) else show(d)) for d in sizes)),
        _array("sizes", "i64", (d if isinstance(d, int) else -1 for t in interface.inputs for d in t.shape)),
    ]
    content = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in strings.block)
    lines.append(f'@strings = internal constant [{len(strings.block)} x i8] c"{content}"')
    lines.append(_STATUS_TEXT.format(p=interface.prefix, own=len(statuses), base=int(Status.OUT_OF_MEMORY),
                                     fixed=len(STATUS_TEXTS), unknown=len(texts) - 1))  # fmt: skip
    return lines


_STATUS_TEXT = """
define ptr @{p}_status_text(i32 %status) {{
  %own = icmp ult i32 %status, {own}
  %past = sub i32 %status, {base}
  %known = icmp ult i32 %past, {fixed}
  %moved = add i32 %past, {own}
  %other = select i1 %known, i32 %moved, i32 {unknown}
  %index = select i1 %own, i32 %status, i32 %other
  %at = getelementptr i32, ptr @status_texts, i32 %index
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
}}
"""


def _descriptions(interface: Interface) -> list[str]:
    """Accessors: null or -1 for what is out of range."""
    lines = []
    for word, first, count in (("input", 0, len(interface.inputs)), ("output", len(interface.inputs), len(interface.outputs))):
        values = {"p": interface.prefix, "word": word, "first": first, "count": count}
        for name in ("name", "dtype"):
            lines.append(_TEXT_OF.format(**values, name=name))
        lines.append(_RANK_OF.format(**values))
        lines.append(_SIZE_OF.format(**values))
        lines.append(_DIMENSION_OF.format(**values))
    return lines


_TEXT_OF = """
define ptr @{p}_{word}_{name}(i32 %tensor) {{
  %fits = icmp ult i32 %tensor, {count}
  br i1 %fits, label %read, label %none
none:
  ret ptr null
read:
  %k = add i32 %tensor, {first}
  %at = getelementptr i32, ptr @tensor_{name}s, i32 %k
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
}}
"""
_RANK_OF = """
define i32 @{p}_{word}_rank(i32 %tensor) {{
  %fits = icmp ult i32 %tensor, {count}
  br i1 %fits, label %read, label %none
none:
  ret i32 -1
read:
  %k = add i32 %tensor, {first}
  %at = getelementptr i32, ptr @tensor_ranks, i32 %k
  %rank = load i32, ptr %at
  ret i32 %rank
}}
"""
_AXIS = """  %rank = call i32 @{p}_{word}_rank(i32 %tensor)
  %known = icmp sge i32 %rank, 0
  %inside = icmp ult i32 %axis, %rank
  %fits = and i1 %known, %inside
  br i1 %fits, label %read, label %none
read:
  %k = add i32 %tensor, {first}
  %start_at = getelementptr i32, ptr @tensor_starts, i32 %k
  %start = load i32, ptr %start_at
  %d = add i32 %start, %axis
"""
_SIZE_OF = "\ndefine i64 @{p}_{word}_size(i32 %tensor, i32 %axis) {{\n" + _AXIS + """  %at = getelementptr i64, ptr @tensor_sizes, i32 %d
  %size = load i64, ptr %at
  ret i64 %size
none:
  ret i64 -1
}}
"""
_DIMENSION_OF = "\ndefine ptr @{p}_{word}_dimension(i32 %tensor, i32 %axis) {{\n" + _AXIS + """  %at = getelementptr i32, ptr @tensor_dimensions, i32 %d
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
none:
  ret ptr null
}}
"""


# -- the processor -------------------------------------------------------------------------------------------------
# feature -> leaf (the low half: cpuid's function; the high: its sub-function), register, bit
_CPUID = {
    "sse3": (1, "c", 0), "ssse3": (1, "c", 9), "fma": (1, "c", 12), "sse4.1": (1, "c", 19), "sse4.2": (1, "c", 20),
    "popcnt": (1, "c", 23), "avx": (1, "c", 28), "f16c": (1, "c", 29),
    "bmi": (7, "b", 3), "avx2": (7, "b", 5), "bmi2": (7, "b", 8), "avx512f": (7, "b", 16), "avx512dq": (7, "b", 17),
    "avx512cd": (7, "b", 28), "avx512bw": (7, "b", 30), "avx512vl": (7, "b", 31), "avx512vbmi": (7, "c", 1),
    "avx512vnni": (7, "c", 11), "amx-bf16": (7, "d", 22), "avx512fp16": (7, "d", 23), "amx-tile": (7, "d", 24),
    "amx-int8": (7, "d", 25), "avx512bf16": (7 | 1 << 32, "a", 5), "avxvnni": (7 | 1 << 32, "a", 4),
}  # fmt: skip
_REGISTERS = "abcd"


def _machine_check(target: CpuTarget) -> str:
    """`machine()`: 0, or the status of a processor that lacks what the code needs; only x86-64 has an instruction that tells."""
    wanted: dict[int, dict[str, int]] = {}
    if target.architecture == CpuTarget.host().architecture == "x86_64":  # LLVM's wheel parses the host's assembly alone
        for feature, (leaf, register, bit) in _CPUID.items():
            if target.has(feature):
                registers = wanted.setdefault(leaf, {})
                registers[register] = registers.get(register, 0) | 1 << bit
    lines = ["define internal i32 @machine() {"]
    fits = []
    for n, (leaf, registers) in enumerate(wanted.items()):
        lines.append(
            f'  %r{n} = call {{ i32, i32, i32, i32 }} asm "cpuid", "={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},'
            f'~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 {leaf & 0xFFFFFFFF}, i32 {leaf >> 32})'
        )
        for register, mask in registers.items():
            signed = mask - (1 << 32) if mask >> 31 else mask
            name = f"{n}{register}"
            lines += [
                f"  %v{name} = extractvalue {{ i32, i32, i32, i32 }} %r{n}, {_REGISTERS.index(register)}",
                f"  %m{name} = and i32 %v{name}, {signed}",
                f"  %f{name} = icmp eq i32 %m{name}, {signed}",
            ]
            fits.append(f"%f{name}")
    all_fit = "true"
    for n, fit in enumerate(fits):
        lines.append(f"  %all{n} = and i1 {all_fit}, {fit}")
        all_fit = f"%all{n}"
    lines += [f"  %status = select i1 {all_fit}, i32 0, i32 $machine", "  ret i32 %status", "}"]
    return "\n".join(lines)
