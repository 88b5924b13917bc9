"""What LLVM calls on 32-bit Arm for want of instructions: divisions, and 64-bit integers to and from floating point.

A C compiler links its own library for these (libgcc); ours are LLVM text, so that a shared library needs libc alone. Names and
conventions: "Run-time ABI for the Arm Architecture", sections 4.1.2 and 4.3.1: floats travel in integer registers, a quotient
and its remainder in four. A division by zero gives the quotient 0; emitted code does not divide by it.
"""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from tensorlang.codegen.native import backend
from tensorlang.codegen.native.target import CpuTarget, initialize_llvm, target_machine

# Divisions: the divisor is shifted up to the dividend's highest bit, and back down a bit at a time.
_DIVIDE = """
declare i$n @llvm.ctlz.i$n(i$n, i1)
declare i$n @llvm.abs.i$n(i$n, i1)

define internal { i$n, i$n } @divide$n(i$n %n, i$n %d) alwaysinline {
  %none = icmp eq i$n %d, 0
  %less = icmp ult i$n %n, %d
  %short = or i1 %none, %less
  br i1 %short, label %small, label %align
small:
  %s = insertvalue { i$n, i$n } zeroinitializer, i$n %n, 1
  ret { i$n, i$n } %s
align:
  %dz = call i$n @llvm.ctlz.i$n(i$n %d, i1 true)
  %nz = call i$n @llvm.ctlz.i$n(i$n %n, i1 true)
  %shift = sub i$n %dz, %nz
  %top = shl i$n %d, %shift
  br label %step
step:
  %k = phi i$n [ %shift, %align ], [ %k1, %step ]
  %t = phi i$n [ %top, %align ], [ %t1, %step ]
  %q = phi i$n [ 0, %align ], [ %q1, %step ]
  %r = phi i$n [ %n, %align ], [ %r1, %step ]
  %fits = icmp uge i$n %r, %t
  %less_t = sub i$n %r, %t
  %r1 = select i1 %fits, i$n %less_t, i$n %r
  %bit = zext i1 %fits to i$n
  %q2 = shl i$n %q, 1
  %q1 = or i$n %q2, %bit
  %t1 = lshr i$n %t, 1
  %k1 = sub i$n %k, 1
  %more = icmp ne i$n %k, 0
  br i1 %more, label %step, label %done
done:
  %a = insertvalue { i$n, i$n } zeroinitializer, i$n %q1, 0
  %b = insertvalue { i$n, i$n } %a, i$n %r1, 1
  ret { i$n, i$n } %b
}

define arm_aapcscc { i$n, i$n } @__aeabi_u$ldivmod(i$n %n, i$n %d) {
  %r = call { i$n, i$n } @divide$n(i$n %n, i$n %d)
  ret { i$n, i$n } %r
}

define arm_aapcscc { i$n, i$n } @__aeabi_$ldivmod(i$n %n, i$n %d) {
  %un = call i$n @llvm.abs.i$n(i$n %n, i1 false)
  %ud = call i$n @llvm.abs.i$n(i$n %d, i1 false)
  %r = call { i$n, i$n } @divide$n(i$n %un, i$n %ud)
  %uq = extractvalue { i$n, i$n } %r, 0
  %ur = extractvalue { i$n, i$n } %r, 1
  %minus_q = sub i$n 0, %uq
  %minus_r = sub i$n 0, %ur
  %signs = xor i$n %n, %d
  %opposite = icmp slt i$n %signs, 0
  %negative = icmp slt i$n %n, 0
  %q = select i1 %opposite, i$n %minus_q, i$n %uq
  %m = select i1 %negative, i$n %minus_r, i$n %ur
  %a = insertvalue { i$n, i$n } zeroinitializer, i$n %q, 0
  %b = insertvalue { i$n, i$n } %a, i$n %m, 1
  ret { i$n, i$n } %b
}
"""

_REST = """
define arm_aapcscc i32 @__aeabi_uidiv(i32 %n, i32 %d) {
  %r = call { i32, i32 } @divide32(i32 %n, i32 %d)
  %q = extractvalue { i32, i32 } %r, 0
  ret i32 %q
}

define arm_aapcscc i32 @__aeabi_idiv(i32 %n, i32 %d) {
  %r = call arm_aapcscc { i32, i32 } @__aeabi_idivmod(i32 %n, i32 %d)
  %q = extractvalue { i32, i32 } %r, 0
  ret i32 %q
}

; both halves are exact, and so is the upper one's product: one rounding, in the sum
define internal double @halves(double %high, i64 %x) alwaysinline {
  %low = trunc i64 %x to i32
  %l = uitofp i32 %low to double
  %h = fmul double %high, 0x41F0000000000000
  %d = fadd double %h, %l
  ret double %d
}

; so that a float is not rounded twice: of what a double would round, it is noted whether it is zero
define internal i64 @sticky(i64 %x, i64 %magnitude) alwaysinline {
  %fits = icmp ult i64 %magnitude, 9007199254740992
  %rest = and i64 %x, 2047
  %zero = icmp eq i64 %rest, 0
  %same = or i1 %fits, %zero
  %cut = and i64 %x, -2048
  %odd = or i64 %cut, 2048
  %y = select i1 %same, i64 %x, i64 %odd
  ret i64 %y
}

define internal double @signed(i64 %x) alwaysinline {
  %s = ashr i64 %x, 32
  %high = trunc i64 %s to i32
  %h = sitofp i32 %high to double
  %d = call double @halves(double %h, i64 %x)
  ret double %d
}

define internal double @unsigned(i64 %x) alwaysinline {
  %s = lshr i64 %x, 32
  %high = trunc i64 %s to i32
  %h = uitofp i32 %high to double
  %d = call double @halves(double %h, i64 %x)
  ret double %d
}

define arm_aapcscc double @__aeabi_l2d(i64 %x) {
  %d = call double @signed(i64 %x)
  ret double %d
}

define arm_aapcscc double @__aeabi_ul2d(i64 %x) {
  %d = call double @unsigned(i64 %x)
  ret double %d
}

define arm_aapcscc float @__aeabi_l2f(i64 %x) {
  %m = call i64 @llvm.abs.i64(i64 %x, i1 false)
  %y = call i64 @sticky(i64 %x, i64 %m)
  %d = call double @signed(i64 %y)
  %f = fptrunc double %d to float
  ret float %f
}

define arm_aapcscc float @__aeabi_ul2f(i64 %x) {
  %y = call i64 @sticky(i64 %x, i64 %x)
  %d = call double @unsigned(i64 %y)
  %f = fptrunc double %d to float
  ret float %f
}

; a processor's conversion to 32 bits saturates
declare i32 @llvm.fptoui.sat.i32.f64(double)

define internal i64 @truncated(double %d) alwaysinline {
  %scaled = fmul double %d, 0x3DF0000000000000
  %high = call i32 @llvm.fptoui.sat.i32.f64(double %scaled)
  %h = uitofp i32 %high to double
  %hd = fmul double %h, 0x41F0000000000000
  %rest = fsub double %d, %hd
  %low = call i32 @llvm.fptoui.sat.i32.f64(double %rest)
  %h64 = zext i32 %high to i64
  %l64 = zext i32 %low to i64
  %top = shl i64 %h64, 32
  %x = or i64 %top, %l64
  ret i64 %x
}

define arm_aapcscc i64 @__aeabi_d2ulz(double %d) {
  %x = call i64 @truncated(double %d)
  ret i64 %x
}

define arm_aapcscc i64 @__aeabi_d2lz(double %d) {
  %minus = fneg double %d
  %negative = fcmp olt double %d, 0.0
  %a = select i1 %negative, double %minus, double %d
  %x = call i64 @truncated(double %a)
  %y = sub i64 0, %x
  %z = select i1 %negative, i64 %y, i64 %x
  ret i64 %z
}

define arm_aapcscc i64 @__aeabi_f2ulz(float %f) {
  %d = fpext float %f to double
  %x = call arm_aapcscc i64 @__aeabi_d2ulz(double %d)
  ret i64 %x
}

define arm_aapcscc i64 @__aeabi_f2lz(float %f) {
  %d = fpext float %f to double
  %x = call arm_aapcscc i64 @__aeabi_d2lz(double %d)
  ret i64 %x
}
"""


@cache
def support_objects(target: CpuTarget) -> tuple[bytes, ...]:
    """What is linked into every shared library for `target`: the functions as a relocatable object, on a 32-bit Arm."""
    if target.architecture != "armv7":
        return ()
    initialize_llvm()
    header = f'target triple = "{target.triple}"\ntarget datalayout = "{target_machine(target).target_data}"\n'
    divisions = "".join(
        _DIVIDE.replace("$l", letter).replace("$n", str(bits)) for bits, letter in ((32, "i"), (64, "l"))
    )
    module = llvm.parse_assembly(header + divisions + _REST)
    module.verify()
    backend.optimise(module, target)
    return (backend.emit(module, target, "object"),)
