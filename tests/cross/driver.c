/* Runs the `main` of a compiled model on files: what other programs do with an exported model, in its smallest form.
 *
 *     driver model.so pool.so threads weights arena_bytes {-d size}... {-i input}... {-o output bytes}...
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int64_t word; /* addresses are 64 bits wide in emitted code, on every machine */
#define ADDRESS(p) ((word)(uintptr_t)(p))
#define POINTER(w) ((void *)(uintptr_t)(w))

typedef int32_t main_type(word *, word, word, word *, word *, word *);
typedef int32_t chunk_type(word *, word, word, void *);

enum { THREADS = 81, SPIN = 80, WORKERS = 96, STRIDE = 16, WORDS = 96 + 256 * 16 }; /* codegen/intrinsics/abi.py */

static word context[8];

static int32_t serial_for(word *ctx, word body, word count, word arguments) {
  return count > 0 ? ((chunk_type *)POINTER(body))(ctx, 0, count, POINTER(arguments)) : 0;
}

static int32_t get_memory(word *ctx, word nbytes, word *result) {
  void *p = NULL;
  (void)ctx;
  if (posix_memalign(&p, 64, (size_t)((nbytes + 64) / 64 * 64)) != 0) return 1;
  *result = ADDRESS(p);
  return 0;
}

static int32_t give_memory(word *ctx, word address) {
  (void)ctx;
  free(POINTER(address));
  return 0;
}

static void *aligned(size_t nbytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, nbytes / 64 * 64 + 64) != 0) exit(3);
  return p;
}

static void *read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  long size;
  void *p;
  if (f == NULL) exit(4);
  fseek(f, 0, SEEK_END);
  size = ftell(f);
  rewind(f);
  p = aligned((size_t)size);
  if (fread(p, 1, (size_t)size, f) != (size_t)size) exit(5);
  fclose(f);
  return p;
}

static void *symbol(void *library, const char *name) {
  void *found = library ? dlsym(library, name) : NULL;
  if (found == NULL) {
    fprintf(stderr, "%s: %s\n", name, dlerror());
    exit(6);
  }
  return found;
}

static main_type *open_model(char **argv) {
  int threads = atoi(argv[3]);
  void *model = dlopen(argv[1], RTLD_NOW), *pool = threads > 0 ? dlopen(argv[2], RTLD_NOW) : NULL;
  main_type *result = (main_type *)symbol(model, "main");
  if (threads > 0) {
    word *state = memset(aligned(WORDS * 8), 0, WORDS * 8);
    state[SPIN] = 100;
    state[THREADS] = threads;
    for (int n = 1; n < threads; n++) {
      word *record = state + WORKERS + n * STRIDE;
      pthread_t thread;
      record[1] = ADDRESS(state);
      record[2] = n;
      if (pthread_create(&thread, NULL, (void *(*)(void *))symbol(pool, "pool_worker"), record) != 0) exit(7);
    }
    context[1] = ADDRESS(symbol(pool, "pool_parallel_for"));
    context[2] = ADDRESS(symbol(pool, "pool_allocate"));
    context[3] = ADDRESS(symbol(pool, "pool_free"));
    context[4] = ADDRESS(state);
    context[5] = threads;
  }
  return result;
}

int main(int argc, char **argv) {
  word inputs[64], outputs[64], dims[64] = {0};
  const char *files[64];
  size_t sizes[64];
  int n_in = 0, n_out = 0, n_dims = 0;
  void *weights = read_file(argv[4]);
  void *arena = aligned((size_t)atoll(argv[5]));
  main_type *run;
  int32_t status;
  context[0] = 1;
  context[1] = ADDRESS(serial_for);
  context[2] = ADDRESS(get_memory);
  context[3] = ADDRESS(give_memory);
  context[5] = 1;
  run = open_model(argv);
  for (int k = 6; k < argc; k++) {
    if (strcmp(argv[k], "-d") == 0) dims[n_dims++] = atoll(argv[++k]);
    if (strcmp(argv[k], "-i") == 0) inputs[n_in++] = ADDRESS(read_file(argv[++k]));
    if (strcmp(argv[k], "-o") == 0) {
      files[n_out] = argv[++k];
      sizes[n_out] = (size_t)atoll(argv[++k]);
      outputs[n_out] = ADDRESS(aligned(sizes[n_out]));
      n_out++;
    }
  }
  for (int turn = 0; turn < 2; turn++) {
    clock_t begun = clock();
    status = run(context, ADDRESS(arena), ADDRESS(weights), inputs, outputs, dims);
    if (status != 0) {
      fprintf(stderr, "status %d\n", (int)status);
      return 1;
    }
    printf("%.3f s\n", (double)(clock() - begun) / CLOCKS_PER_SEC);
  }
  for (int k = 0; k < n_out; k++) {
    FILE *f = fopen(files[k], "wb");
    if (f == NULL || fwrite(POINTER(outputs[k]), 1, sizes[k], f) != sizes[k]) return 8;
    fclose(f);
  }
  return 0;
}
