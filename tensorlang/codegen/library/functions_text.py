"""The C functions as LLVM text, with `$names` for what depends on the model and the target (`api.py` fills them in).

`$w` is the integer of an address's width. Order in a run: sizes and pointers are checked first, then memory is found, then the
program runs, then what it allocated and found out is told; whatever fails, the workspace is given back and the status noted.
"""

from __future__ import annotations

C_FUNCTIONS = """
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
  %none = icmp eq ptr %m, null
  br i1 %none, label %null, label %read
null:
  ret i32 -1
read:
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
  %wide = call i64 @long($w %n)
  %n32 = trunc i64 %wide to i32
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
  %open = icmp ne i32 $is_open, 0
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
  %status = phi i32 [ %planned, %start ], [ %a_status, %allocate ], [ $workspace, %borrow ], [ %ran, %after ],
                    [ %left, %leave ], [ 0, %tell ]
  %n = call i32 @note(ptr %m, i32 %status)
  ret i32 %n
}

define void @${p}_free(ptr %memory) {
  call void @free(ptr %memory)
  ret void
}
"""

# between 8-byte words and the target's own
WIDTHS = {
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
