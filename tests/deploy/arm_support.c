/* Calls the functions of a library that 32-bit Arm code needs, and compares with the compiler's own. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BASE __attribute__((pcs("aapcs")))

static int failures;

static void compare(const char *name, uint64_t got, uint64_t wanted, uint64_t a, uint64_t b) {
  if (got == wanted) return;
  if (failures++ < 10)
    printf("%s(%016llx, %016llx) = %016llx, not %016llx\n", name, (unsigned long long)a, (unsigned long long)b,
           (unsigned long long)got, (unsigned long long)wanted);
}

static uint64_t bits(double d) {
  uint64_t u;
  memcpy(&u, &d, sizeof u);
  return u;
}

static void *library;

static void *function(const char *name) {
  void *found = dlsym(library, name);
  if (found == NULL) failures++, printf("%s is missing\n", name);
  return found;
}

static uint64_t state = 88172645463325252u;

static uint64_t next(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state >> (state * 0x9E3779B97F4A7C15u >> 58); /* of all magnitudes */
}

/* a function that returns {quotient, remainder} in four registers, called so that C sees both */
static uint64_t remainder_of(void *f, uint64_t n, uint64_t d, uint64_t *quotient) {
  register uint32_t r0 __asm__("r0") = (uint32_t)n;
  register uint32_t r1 __asm__("r1") = (uint32_t)(n >> 32);
  register uint32_t r2 __asm__("r2") = (uint32_t)d;
  register uint32_t r3 __asm__("r3") = (uint32_t)(d >> 32);
  __asm__ volatile("blx %4" : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3) : "r"(f) : "ip", "lr", "cc", "memory");
  *quotient = r0 | (uint64_t)r1 << 32;
  return r2 | (uint64_t)r3 << 32;
}

int main(int argc, char **argv) {
  library = dlopen(argc > 1 ? argv[1] : "", RTLD_NOW);
  if (library == NULL) return puts(dlerror()), 1;
  void *udivmod = function("__aeabi_uldivmod"), *divmod = function("__aeabi_ldivmod");
  uint32_t (*udiv)(uint32_t, uint32_t) = function("__aeabi_uidiv");
  int32_t (*div)(int32_t, int32_t) = function("__aeabi_idiv");
  uint64_t (*udivmod32)(uint32_t, uint32_t) = function("__aeabi_uidivmod");
  uint64_t (*divmod32)(int32_t, int32_t) = function("__aeabi_idivmod");
  BASE double (*l2d)(int64_t) = function("__aeabi_l2d");
  BASE double (*ul2d)(uint64_t) = function("__aeabi_ul2d");
  BASE float (*l2f)(int64_t) = function("__aeabi_l2f");
  BASE float (*ul2f)(uint64_t) = function("__aeabi_ul2f");
  BASE int64_t (*d2lz)(double) = function("__aeabi_d2lz");
  BASE uint64_t (*d2ulz)(double) = function("__aeabi_d2ulz");
  BASE int64_t (*f2lz)(float) = function("__aeabi_f2lz");
  BASE uint64_t (*f2ulz)(float) = function("__aeabi_f2ulz");
  if (failures) return 1;
  for (int k = 0; k < 20000; k++) {
    uint64_t a = next(), b = next() | (k & 1), q;
    if (b == 0) b = 1;
    if (k % 5 == 0) a = b * (next() % 1000);
    if (k & 2) a = -a;
    if (k & 4) b = -b;
    uint64_t r = remainder_of(udivmod, a, b, &q);
    compare("uldivmod quotient", q, a / b, a, b);
    compare("uldivmod remainder", r, a % b, a, b);
    if (!(a == (uint64_t)1 << 63 && b == (uint64_t)-1)) {
      r = remainder_of(divmod, a, b, &q);
      compare("ldivmod quotient", q, (uint64_t)((int64_t)a / (int64_t)b), a, b);
      compare("ldivmod remainder", r, (uint64_t)((int64_t)a % (int64_t)b), a, b);
    }
    uint32_t m = (uint32_t)a, n = (uint32_t)b ? (uint32_t)b : 1;
    compare("uidiv", udiv(m, n), m / n, m, n);
    compare("uidivmod", udivmod32(m, n), (uint64_t)(m % n) << 32 | m / n, m, n);
    if (!(m == 0x80000000u && n == 0xFFFFFFFFu)) {
      int32_t sm = (int32_t)m, sn = (int32_t)n;
      compare("idiv", (uint32_t)div(sm, sn), (uint32_t)(sm / sn), m, n);
      compare("idivmod", divmod32(sm, sn), (uint64_t)(uint32_t)(sm % sn) << 32 | (uint32_t)(sm / sn), m, n);
    }
    compare("l2d", bits(l2d((int64_t)a)), bits((double)(int64_t)a), a, 0);
    compare("ul2d", bits(ul2d(a)), bits((double)a), a, 0);
    compare("l2f", bits(l2f((int64_t)a)), bits((float)(int64_t)a), a, 0);
    compare("ul2f", bits(ul2f(a)), bits((float)a), a, 0);
    double d = (double)(int64_t)(a >> 1) * 0.75;
    if (k & 1) d = -d;
    float f = (float)(int64_t)(a >> 3) * -0.5f;
    compare("d2lz", (uint64_t)d2lz(d), (uint64_t)(int64_t)d, bits(d), 0);
    compare("d2ulz", d2ulz(d < 0 ? -d : d), (uint64_t)(d < 0 ? -d : d), bits(d), 0);
    compare("f2lz", (uint64_t)f2lz(f), (uint64_t)(int64_t)f, bits(f), 0);
    compare("f2ulz", f2ulz(f < 0 ? -f : f), (uint64_t)(f < 0 ? -f : f), bits(f), 0);
  }
  printf("%d differences\n", failures);
  return failures != 0;
}
