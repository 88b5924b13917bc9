/* Runs a library in every way that its header offers. P is its prefix; the inputs lie in in<k>.bin, the last argument of
 * make is the weights' file, and the other arguments are the sizes of the inputs. Writes out<k>.bin. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define F(name) NAME(P, name)
#define COUNT 16
#define THREADS 4
#define REPEATS 3

static const void *inputs[COUNT];
static int64_t sizes[64];
static P *instances[2];
static void *results[THREADS][COUNT];
static int64_t shapes[THREADS][64];
static void *kept[64]; /* given back at the end */
static int num_kept;

static void need(int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
  }
}

static void ok(int32_t status, const char *what) {
  if (status != 0) fprintf(stderr, "%s: %s\n", what, F(_status_text)(status));
  need(status == 0, what);
}

static void *get(size_t nbytes) {
  void *memory = malloc(nbytes + 1);
  need(memory != NULL, "memory");
  return memory;
}

static size_t item(const char *dtype) {
  const char *digits = strpbrk(dtype, "0123456789");
  return digits ? (size_t)atoi(digits) / 8 : 1;
}

static void *slurp(const char *path, size_t *nbytes) {
  FILE *file = fopen(path, "rb");
  char *data, *aligned;
  long size;
  need(file != NULL, path);
  fseek(file, 0, SEEK_END);
  size = ftell(file);
  rewind(file);
  data = kept[num_kept++] = get((size_t)size + 64);
  aligned = data + (64 - (uintptr_t)data % 64) % 64;
  need(fread(aligned, 1, (size_t)size, file) == (size_t)size, path);
  fclose(file);
  *nbytes = (size_t)size;
  return aligned;
}

static size_t output_bytes(int32_t k, const int64_t *shape) {
  size_t nbytes = item(F(_output_dtype)(k));
  int32_t axis;
  for (axis = 0; axis < F(_output_rank)(k); axis++) nbytes *= (size_t)shape[axis];
  return nbytes;
}

static void *work(void *argument) {
  int t = *(int *)argument, repeat;
  P *m = instances[t % 2];
  int64_t needed = 0, planned[64];
  char *workspace = NULL;
  ok(F(_output_shapes)(m, sizes, planned), "output_shapes");
  ok(F(_workspace_bytes)(m, sizes, &needed), "workspace_bytes");
  if (t >= 2) workspace = get((size_t)needed + 1);
  for (repeat = 0; repeat < REPEATS; repeat++) {
    void *outputs[COUNT] = {NULL};
    int32_t k;
    int64_t at = 0;
    for (k = 0; F(_output_name)(k); k++) {
      int32_t axis, told = 0;
      for (axis = 0; axis < F(_output_rank)(k); axis++) told |= planned[at + axis] < 0;
      outputs[k] = told ? NULL : get(output_bytes(k, planned + at));
      at += F(_output_rank)(k);
    }
    ok(F(_run)(m, inputs, sizes, outputs, shapes[t], workspace ? workspace + 1 : NULL, needed), "run");
    for (k = 0, at = 0; F(_output_name)(k); at += F(_output_rank)(k), k++) {
      size_t nbytes = output_bytes(k, shapes[t] + at);
      if (repeat == 0) {
        results[t][k] = get(nbytes);
        memcpy(results[t][k], outputs[k], nbytes);
      } else {
        need(memcmp(results[t][k], outputs[k], nbytes) == 0, "the same result again");
      }
      F(_free)(outputs[k]);
    }
  }
  free(workspace);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  int numbers[THREADS], t;
  int32_t k, status;
  size_t nbytes;
  int64_t at = 0, needed = 0;
  void *weights, *nothing[COUNT] = {NULL}, *room;
  P *other;
  char name[32];

  for (t = 2; t < argc; t++) sizes[t - 2] = atoll(argv[t]);
  for (k = 0; F(_input_name)(k); k++) {
    sprintf(name, "in%d.bin", (int)k);
    inputs[k] = slurp(name, &nbytes);
  }
  need(F(_input_name)(-1) == NULL && F(_input_rank)(k) == -1 && F(_output_size)(99, 0) == -1, "out of range");
  weights = slurp(argv[1], &nbytes);
  ok(F(_create)(&instances[0]), "create");
  ok(F(_create_from_memory)(&instances[1], weights, (int64_t)nbytes), "create_from_memory");
  ok(F(_create_from_file)(&other, argv[1]), "create_from_file");
  F(_destroy)(other);
  F(_destroy)(NULL);

  /* refusals */
  need(F(_create_from_memory)(&other, weights, (int64_t)nbytes - 64) != 0 && other == NULL, "too short");
  ((char *)weights)[nbytes / 2] ^= 1;
  need(F(_create_from_memory)(&other, weights, (int64_t)nbytes) != 0 && other == NULL, "damaged weights");
  ((char *)weights)[nbytes / 2] ^= 1;
  need(F(_create_from_file)(&other, "/nowhere/at/all") != 0, "no file");
  need(F(_create_from_file)(&other, argv[0]) != 0, "not weights");
  need(F(_run)(NULL, inputs, sizes, nothing, NULL, NULL, 0) != 0, "no instance");
  need(F(_set_threads)(instances[0], 1000) != 0, "too many threads");
  need(strstr(F(_last_error)(instances[0]), "256") != NULL, "the last error's text");
  ok(F(_workspace_bytes)(instances[0], sizes, &needed), "workspace_bytes");
  room = get(64);
  for (k = 0; F(_output_name)(k); k++) nothing[k] = room;
  status = F(_run)(instances[0], inputs, sizes, nothing, NULL, room, needed - 1);
  need(status != 0 && strstr(F(_last_error)(instances[0]), "workspace") != NULL, "small workspace");
  free(room);
  need(strcmp(F(_status_text)(12345678), "unknown status") == 0, "unknown status");

  ok(F(_set_threads)(instances[0], 3), "set_threads");
  ok(F(_set_threads)(instances[0], 2), "set_threads");
  ok(F(_set_threads)(instances[1], 0), "set_threads");
  need(F(_threads)(instances[0]) == 2, "threads");
  for (t = 0; t < THREADS; t++) {
    numbers[t] = t;
    need(pthread_create(&threads[t], NULL, work, &numbers[t]) == 0, "pthread_create");
  }
  for (t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
  for (k = 0; F(_output_name)(k); k++) {
    FILE *file;
    nbytes = output_bytes(k, shapes[0] + at);
    for (t = 1; t < THREADS; t++) need(memcmp(results[t][k], results[0][k], nbytes) == 0, "the same in all threads");
    sprintf(name, "out%d.bin", (int)k);
    file = fopen(name, "wb");
    need(file != NULL && fwrite(results[0][k], 1, nbytes, file) == nbytes, "writing");
    fclose(file);
    at += F(_output_rank)(k);
    for (t = 0; t < THREADS; t++) free(results[t][k]);
  }
  while (num_kept > 0) free(kept[--num_kept]);
  F(_destroy)(instances[0]);
  F(_destroy)(instances[1]);
  return 0;
}
