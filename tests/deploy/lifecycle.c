/* What the header promises of a library that comes and goes: loaded by dlopen again and again, misused, forked. Arguments: the
 * library, its prefix, the weights' file, and the sizes of the inputs. All outputs are float32, all inputs are zeros. */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 16

typedef struct model model;
typedef struct {
  int32_t (*create)(model **), (*create_from_memory)(model **, const void *, int64_t), (*create_from_file)(model **, const char *);
  void (*destroy)(model *), (*free)(void *);
  int32_t (*set_threads)(model *, int32_t), (*threads)(const model *);
  int32_t (*output_shapes)(model *, const int64_t *, int64_t *), (*workspace_bytes)(model *, const int64_t *, int64_t *);
  int32_t (*run)(model *, const void *const *, const int64_t *, void **, int64_t *, void *, int64_t);
  const char *(*status_text)(int32_t), *(*last_error)(const model *), *(*output_name)(int32_t);
  int32_t (*output_rank)(int32_t);
} functions;

static int64_t sizes[64];
static void *zeros[COUNT];
static functions f;

static void need(int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
  }
}

static void *symbol(void *library, const char *prefix, const char *name) {
  char whole[256];
  void *found;
  sprintf(whole, "%s_%s", prefix, name);
  found = dlsym(library, whole);
  need(found != NULL, whole);
  return found;
}

/* POSIX wants the address of a function to fit in a void *, C does not let one cast it */
#define TAKE(name) do { void *at = symbol(library, prefix, #name); memcpy(&f.name, &at, sizeof at); } while (0)

static void *open_library(const char *path, const char *prefix) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) fprintf(stderr, "%s\n", dlerror());
  need(library != NULL, "dlopen");
  TAKE(create); TAKE(create_from_memory); TAKE(create_from_file); TAKE(destroy); TAKE(free); TAKE(set_threads); TAKE(threads);
  TAKE(output_shapes); TAKE(workspace_bytes); TAKE(run); TAKE(status_text); TAKE(last_error); TAKE(output_name);
  TAKE(output_rank);
  return library;
}

static int entries(const char *folder) { /* threads or open files, by /proc */
  int count = 0;
  DIR *opened = opendir(folder);
  need(opened != NULL, folder);
  while (readdir(opened) != NULL) count++;
  closedir(opened);
  return count;
}

static long pages(void) { /* of address space */
  long total = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  need(file != NULL && fscanf(file, "%ld", &total) == 1, "statm");
  fclose(file);
  return total;
}

static double compute(model *m) { /* a number that tells all outputs */
  void *outputs[COUNT] = {NULL};
  int64_t shapes[64], at = 0;
  double sum = 0;
  int32_t k, axis;
  need(f.output_shapes(m, sizes, shapes) == 0, "output_shapes");
  for (k = 0; f.output_name(k); k++) outputs[k] = calloc(1 << 16, 4);
  need(f.run(m, (const void *const *)zeros, sizes, outputs, NULL, NULL, 0) == 0, "run");
  for (k = 0; f.output_name(k); k++) {
    int64_t n = 1, i;
    for (axis = 0; axis < f.output_rank(k); axis++) n *= shapes[at++];
    for (i = 0; i < n; i++) sum += (double)(i + 1) * ((float *)outputs[k])[i];
    free(outputs[k]);
  }
  return sum;
}

static void misuse(void) {
  model *m = (model *)&m;
  void *nothing[COUNT] = {NULL}, *outputs[COUNT];
  int64_t n = 0, negative[64];
  int32_t k;
  for (k = 0; k < COUNT; k++) outputs[k] = calloc(1 << 16, 4);
  for (k = 0; k < 64; k++) negative[k] = -3;
  need(f.create(NULL) != 0 && f.create_from_file(NULL, "x") != 0 && f.create_from_memory(NULL, &n, 8) != 0, "no place");
  need(f.create_from_file(&m, NULL) != 0, "no path");
  need(f.create_from_memory(&m, NULL, 64) != 0 && m == NULL, "no weights");
  need(f.create_from_file(&m, "/") != 0 && m == NULL, "a folder");
  f.destroy(NULL);
  need(f.threads(NULL) == -1 && f.set_threads(NULL, 2) != 0, "no instance: threads");
  need(f.output_shapes(NULL, sizes, &n) != 0 && f.workspace_bytes(NULL, sizes, &n) != 0, "no instance: sizes");
  need(f.last_error(NULL) != NULL && f.status_text(-5) != NULL, "texts");
  need(f.create(&m) == 0, "create");
  need(f.set_threads(m, -1) != 0 && f.set_threads(m, 2000000000) != 0 && f.threads(m) == 1, "counts of threads");
  need(f.output_shapes(m, sizes, NULL) != 0 && f.workspace_bytes(m, sizes, NULL) != 0, "no result");
  need(f.output_shapes(m, negative, &n) != 0 && f.workspace_bytes(m, negative, &n) != 0, "negative sizes");
  need(f.run(m, NULL, sizes, outputs, NULL, NULL, 0) != 0, "no table of inputs");
  need(f.run(m, (const void *const *)zeros, sizes, NULL, NULL, NULL, 0) != 0, "no table of outputs");
  need(f.run(m, (const void *const *)nothing, sizes, outputs, NULL, NULL, 0) != 0, "an input is NULL");
  need(f.run(m, (const void *const *)zeros, sizes, nothing, NULL, NULL, 0) != 0, "an output is NULL");
  need(f.run(m, (const void *const *)zeros, NULL, outputs, NULL, NULL, 0) != 0, "open sizes that are not told");
  need(f.run(m, (const void *const *)zeros, negative, outputs, NULL, NULL, 0) != 0, "negative sizes of a run");
  need(f.run(m, (const void *const *)zeros, sizes, outputs, NULL, outputs[0], -1) != 0, "a workspace of -1 bytes");
  compute(m); /* and the instance goes on */
  f.destroy(m);
  for (k = 0; k < COUNT; k++) free(outputs[k]);
}

static void forks(double wanted, const char *weights) {
  model *m, *mine;
  int32_t k;
  need(f.create_from_file(&m, weights) == 0 && f.set_threads(m, 3) == 0 && compute(m) == wanted, "the parent's instance");
  for (k = 0; k < 4; k++) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
      alarm(60);
      _exit(f.create(&mine) == 0 && f.set_threads(mine, 3) == 0 && compute(mine) == wanted && (f.destroy(mine), 1) ? 0 : 1);
    }
    need(compute(m) == wanted, "the parent goes on");
    need(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's own instance");
  }
  f.destroy(m);
}

int main(int argc, char **argv) {
  int k, threads = entries("/proc/self/task"), files = 0;
  long before = 0;
  double first = 0;
  need(argc > 4, "arguments");
  for (k = 4; k < argc; k++) sizes[k - 4] = atoll(argv[k]);
  for (k = 0; k < COUNT; k++) zeros[k] = calloc(1 << 16, 4);
  for (k = 0; k < 40; k++) {
    void *library = open_library(argv[1], argv[2]);
    model *one, *two;
    double sum;
    need(f.create(&one) == 0 && f.create_from_file(&two, argv[3]) == 0, "create");
    need(f.set_threads(one, 4) == 0 && f.set_threads(two, 2) == 0, "set_threads");
    need(entries("/proc/self/task") == threads + 4, "workers");
    sum = compute(one);
    need(sum == compute(two) && (k == 0 || sum == first), "the same each time");
    first = sum;
    if (k == 0) misuse();
    if (k == 0) forks(first, argv[3]);
    f.destroy(one);
    f.destroy(two);
    need(entries("/proc/self/task") == threads, "no thread stays");
    need(dlclose(library) == 0 && dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) == NULL, "the library goes");
    if (k == 19) before = pages(), files = entries("/proc/self/fd"); /* malloc's own memory has grown by then */
  }
  need(pages() - before < 256 && entries("/proc/self/fd") == files, "nothing stays behind");
  for (k = 0; k < COUNT; k++) free(zeros[k]);
  printf("%.9g\n", first);
  return 0;
}
