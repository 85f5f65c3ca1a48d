/* Times models with ONNX Runtime's C API, in turn, or returns their outputs; prints JSON between two marks.
 *
 * Usage: runner FOLDER, where FOLDER holds libonnxruntime.so, request.txt, feeds.bin and the models 0.onnx, 1.onnx, ...
 * What it measures and prints is what runner.py measures and prints. It needs a C library and nothing else: the runtime is
 * loaded when it starts. Lines "round I N" on stderr tell how far it is. It ends where its input does: then nobody waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <onnxruntime_c_api.h>

#define MAX_MODELS 64
#define MAX_INPUTS 64
#define MAX_NAMES 64
#define MAX_DIMS 16
#define MAX_RUNS 100000
#define MAX_ROUNDS 64

typedef struct {
  char name[512];
  ONNXTensorElementDataType type;
  size_t n_dims, bytes, offset; /* bytes of one batch; offset of the first one */
  int64_t dims[MAX_DIMS];
} Input;

typedef struct {
  OrtSession *session;
  double init_ms[MAX_ROUNDS], first_ms[MAX_ROUNDS];
  double *wall_ms[MAX_ROUNDS], *cpu_ms[MAX_ROUNDS];
  size_t n_outputs;
  char **outputs;
} Model;

typedef struct {
  int threads, warm_up, min_rounds, max_rounds, min_runs, max_runs, n_models, n_batches, n_inputs, n_names;
  long runs;
  double budget_s;
  Input inputs[MAX_INPUTS];
  char *names[MAX_NAMES];
} Request;

static const OrtApi *ort;
static OrtEnv *env;
static OrtMemoryInfo *memory;
static Request request;
static Model models[MAX_MODELS];
static char *folder, *feeds;

static void fail(const char *format, ...) {
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  printf("<<<bocr-onnx\n{\"error\": \"");
  for (char *at = text; *at; at++) {
    if (*at == '"' || *at == '\\') putchar('\\');
    putchar((unsigned char)*at < 32 ? ' ' : *at);
  }
  printf("\"}\nbocr-onnx>>>\n");
  exit(0);
}

static void must(OrtStatus *status) {
  if (status != NULL) fail("%s", ort->GetErrorMessage(status));
}

static double now_ms(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static char *path_of(const char *name) {
  char *path = malloc(strlen(folder) + strlen(name) + 2);
  sprintf(path, "%s/%s", folder, name);
  return path;
}

static void *end_with_input(void *unused) {
  char bytes[256];
  (void)unused;
  while (read(0, bytes, sizeof bytes) > 0) {
  }
  _exit(1);
}

static void pin(char *cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (char *core = strtok(cores, ","); core; core = strtok(NULL, ",")) CPU_SET(atoi(core), &set);
  if (sched_setaffinity(0, sizeof set, &set)) fail("cores must be there, they are not");
}

static void read_input(char *line) {
  if (request.n_inputs == MAX_INPUTS) fail("too many inputs");
  Input *input = &request.inputs[request.n_inputs++];
  int type, used;
  if (sscanf(line, "%d %zu %zu %zu%n", &type, &input->offset, &input->bytes, &input->n_dims, &used) != 4 ||
      input->n_dims > MAX_DIMS)
    fail("request.txt must hold inputs, got %s", line);
  line += used;
  for (size_t i = 0; i < input->n_dims; i++) input->dims[i] = strtoll(line, &line, 10);
  input->type = (ONNXTensorElementDataType)type;
  snprintf(input->name, sizeof input->name, "%s", line + 1);
}

static void read_request(void) {
  FILE *file = fopen(path_of("request.txt"), "r");
  char line[2048], key[32];
  if (file == NULL) fail("request.txt must be there");
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    int used = 0;
    if (sscanf(line, "%31s %n", key, &used) != 1) continue;
    char *value = line + used;
    if (!strcmp(key, "threads")) request.threads = atoi(value);
    else if (!strcmp(key, "budget_s")) request.budget_s = atof(value);
    else if (!strcmp(key, "runs")) request.runs = atol(value);
    else if (!strcmp(key, "warm_up")) request.warm_up = atoi(value);
    else if (!strcmp(key, "min_rounds")) request.min_rounds = atoi(value);
    else if (!strcmp(key, "max_rounds")) request.max_rounds = atoi(value);
    else if (!strcmp(key, "min_runs")) request.min_runs = atoi(value);
    else if (!strcmp(key, "max_runs")) request.max_runs = atoi(value);
    else if (!strcmp(key, "models")) request.n_models = atoi(value);
    else if (!strcmp(key, "batches")) request.n_batches = atoi(value);
    else if (!strcmp(key, "pin")) pin(value);
    else if (!strcmp(key, "input")) read_input(value);
    else if (!strcmp(key, "name") && request.n_names < MAX_NAMES) request.names[request.n_names++] = strdup(value);
  }
  fclose(file);
  if (request.n_models > MAX_MODELS || request.max_rounds > MAX_ROUNDS) fail("too many models or rounds");
}

static void read_feeds(void) {
  FILE *file = fopen(path_of("feeds.bin"), "rb");
  if (file == NULL) fail("feeds.bin must be there");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  feeds = malloc(size + 1);
  if (feeds == NULL || fread(feeds, 1, size, file) != (size_t)size) fail("MemoryError: feeds.bin must fit into memory");
  fclose(file);
  for (int i = 0; i < request.n_inputs; i++) {
    Input *input = &request.inputs[i];
    if (input->offset + input->bytes * request.n_batches > (size_t)size) fail("feeds.bin must hold all inputs");
  }
}

static void load_runtime(void) {
  void *library = dlopen(path_of("libonnxruntime.so"), RTLD_NOW);
  if (library == NULL) fail("libonnxruntime.so must load, got %s", dlerror());
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (base == NULL) fail("libonnxruntime.so must be ONNX Runtime");
  ort = base()->GetApi(ORT_API_VERSION);
  if (ort == NULL) fail("ONNX Runtime must know API %d, %s does not", ORT_API_VERSION, base()->GetVersionString());
  printf("<<<version %s version>>>\n", base()->GetVersionString());
  must(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bocr-onnx", &env));
  must(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
}

static OrtSession *open_session(int number) {
  OrtSessionOptions *options;
  OrtSession *session;
  char name[32];
  must(ort->CreateSessionOptions(&options));
  must(ort->SetIntraOpNumThreads(options, request.threads));
  must(ort->SetInterOpNumThreads(options, 1));
  must(ort->SetSessionLogSeverityLevel(options, 4));
  must(ort->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL));
  must(ort->AddSessionConfigEntry(options, "session.set_denormal_as_zero", "1"));
  snprintf(name, sizeof name, "%d.onnx", number);
  must(ort->CreateSession(env, path_of(name), options, &session));
  ort->ReleaseSessionOptions(options);
  return session;
}

static void read_outputs(Model *model) {
  OrtAllocator *allocator;
  must(ort->GetAllocatorWithDefaultOptions(&allocator));
  must(ort->SessionGetOutputCount(model->session, &model->n_outputs));
  model->outputs = calloc(model->n_outputs, sizeof(char *));
  for (size_t i = 0; i < model->n_outputs; i++)
    must(ort->SessionGetOutputName(model->session, i, allocator, &model->outputs[i]));
}

static void make_inputs(int batch, const char **names, OrtValue **values) {
  for (int i = 0; i < request.n_inputs; i++) {
    Input *input = &request.inputs[i];
    names[i] = input->name;
    must(ort->CreateTensorWithDataAsOrtValue(memory, feeds + input->offset + (size_t)batch * input->bytes, input->bytes,
                                             input->dims, input->n_dims, input->type, &values[i]));
  }
}

static void release(OrtValue **values, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (values[i] != NULL) ort->ReleaseValue(values[i]);
    values[i] = NULL;
  }
}

static void run(Model *model, const char **names, OrtValue **values) {
  OrtValue *found[MAX_NAMES] = {0};
  if (model->n_outputs > MAX_NAMES) fail("too many outputs");
  must(ort->Run(model->session, NULL, names, (const OrtValue *const *)values, request.n_inputs,
                (const char *const *)model->outputs, model->n_outputs, found));
  release(found, model->n_outputs);
}

static void open_timed(Model *model, int number, int round, const char **names, OrtValue **values) {
  double start = now_ms(CLOCK_MONOTONIC);
  model->session = open_session(number);
  model->init_ms[round] = now_ms(CLOCK_MONOTONIC) - start;
  if (model->outputs == NULL) read_outputs(model);
  start = now_ms(CLOCK_MONOTONIC);
  run(model, names, values);
  model->first_ms[round] = now_ms(CLOCK_MONOTONIC) - start;
  for (int i = 1; i < request.warm_up; i++) run(model, names, values);
}

static long runs_per_round(void) {
  double all_ms = 1e-6;
  for (int i = 0; i < request.n_models; i++) all_ms += models[i].first_ms[0];
  long runs = request.budget_s * 1e3 / request.max_rounds / all_ms;
  if (request.runs) runs = (request.runs + request.max_rounds - 1) / request.max_rounds;
  else if (runs > request.max_runs) runs = request.max_runs;
  else if (runs < request.min_runs) runs = request.min_runs;
  runs += runs % 2;
  return runs > MAX_RUNS ? MAX_RUNS : runs;
}

static void time_run(Model *model, int round, long at, const char **names, OrtValue **values) {
  double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_THREAD_CPUTIME_ID);
  run(model, names, values);
  model->cpu_ms[round][at] = now_ms(CLOCK_THREAD_CPUTIME_ID) - cpu;
  model->wall_ms[round][at] = now_ms(CLOCK_MONOTONIC) - wall;
}

static void print_list(const char *name, double *values, long n) {
  printf("\"%s\": [", name);
  for (long i = 0; i < n; i++) printf("%s%.6f", i ? ", " : "", values[i]);
  printf("]");
}

static void print_rounds(const char *name, double **rounds, int n, long runs) {
  printf("\"%s\": [", name);
  for (int i = 0; i < n; i++) {
    printf("%s[", i ? ", " : "");
    for (long j = 0; j < runs; j++) printf("%s%.6f", j ? ", " : "", rounds[i][j]);
    printf("]");
  }
  printf("]");
}

static void measure(void) {
  const char *names[MAX_INPUTS];
  OrtValue *values[MAX_INPUTS] = {0};
  double start = now_ms(CLOCK_MONOTONIC);
  long runs = 0;
  int rounds = 0;
  make_inputs(0, names, values);
  for (int last = 0; !last; rounds++) {
    int forward = rounds % 2 == 0, n = request.n_models;
    for (int i = 0; i < n; i++) {
      int number = forward ? i : n - 1 - i;
      open_timed(&models[number], number, rounds, names, values);
    }
    if (!runs) runs = runs_per_round();
    for (int i = 0; i < n; i++) {
      models[i].wall_ms[rounds] = calloc(runs, sizeof(double));
      models[i].cpu_ms[rounds] = calloc(runs, sizeof(double));
    }
    for (long at = 0; at < runs; at++) /* A B B A */
      for (int i = 0; i < n; i++) time_run(&models[(at % 2 == 0) == forward ? i : n - 1 - i], rounds, at, names, values);
    for (int i = 0; i < n; i++) ort->ReleaseSession(models[i].session);
    int done = rounds + 1, late = now_ms(CLOCK_MONOTONIC) - start > request.budget_s * 1e3 && !request.runs;
    last = done == request.max_rounds || (late && done >= request.min_rounds && done % 2 == 0);
    fprintf(stderr, "round %d %d\n", done, last ? done : request.max_rounds);
  }
  release(values, request.n_inputs);
  printf("<<<bocr-onnx\n{\"providers\": [");
  for (int i = 0; i < request.n_models; i++) printf("%s[\"CPUExecutionProvider\"]", i ? ", " : "");
  printf("], \"timings\": [");
  for (int i = 0; i < request.n_models; i++) {
    printf("%s{", i ? ", " : "");
    print_list("init_ms", models[i].init_ms, rounds), printf(", ");
    print_list("first_ms", models[i].first_ms, rounds), printf(", ");
    print_rounds("wall_ms", models[i].wall_ms, rounds, runs), printf(", ");
    print_rounds("cpu_ms", models[i].cpu_ms, rounds, runs);
    printf("}");
  }
  printf("]}\nbocr-onnx>>>\n");
}

/* Code of numpy and bytes of an element, by the type's number; empty where an output cannot be of it. */
static const struct { const char *code; size_t bytes; } TYPES[] = {
    {"", 0},    {"<f4", 4}, {"|u1", 1}, {"|i1", 1}, {"<u2", 2}, {"<i2", 2}, {"<i4", 4},
    {"<i8", 8}, {"", 0},    {"|b1", 1}, {"<f2", 2}, {"<f8", 8}, {"<u4", 4}, {"<u8", 8}};

static void print_base64(const unsigned char *data, size_t n) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    unsigned long bits = data[i] << 16 | (i + 1 < n ? data[i + 1] << 8 : 0) | (i + 2 < n ? data[i + 2] : 0);
    char four[] = {digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63], digits[bits & 63], 0};
    if (i + 1 >= n) four[2] = '=';
    if (i + 2 >= n) four[3] = '=';
    fputs(four, stdout);
  }
}

static void print_tensor(OrtValue *value) {
  OrtTensorTypeAndShapeInfo *info;
  ONNXTensorElementDataType type;
  size_t n_dims, n;
  int64_t dims[MAX_DIMS];
  void *data;
  must(ort->GetTensorTypeAndShape(value, &info));
  must(ort->GetTensorElementType(info, &type));
  must(ort->GetDimensionsCount(info, &n_dims));
  if (n_dims > MAX_DIMS || type >= sizeof TYPES / sizeof *TYPES || !TYPES[type].bytes) fail("an output has no known type");
  must(ort->GetDimensions(info, dims, n_dims));
  must(ort->GetTensorShapeElementCount(info, &n));
  must(ort->GetTensorMutableData(value, &data));
  printf("{\"dtype\": \"%s\", \"shape\": [", TYPES[type].code);
  for (size_t i = 0; i < n_dims; i++) printf("%s%lld", i ? ", " : "", (long long)dims[i]);
  printf("], \"data\": \"");
  print_base64(data, n * TYPES[type].bytes);
  printf("\"}");
  ort->ReleaseTensorTypeAndShapeInfo(info);
}

static void print_outputs(void) {
  const char *names[MAX_INPUTS];
  OrtValue *values[MAX_INPUTS] = {0}, *found[MAX_NAMES] = {0};
  for (int i = 0; i < request.n_models; i++) {
    OrtSession *session = open_session(i);
    printf(i ? ", [" : "<<<bocr-onnx\n{\"outputs\": [[");
    for (int batch = 0; batch < request.n_batches; batch++) {
      make_inputs(batch, names, values);
      OrtStatus *status = ort->Run(session, NULL, names, (const OrtValue *const *)values, request.n_inputs,
                                   (const char *const *)request.names, request.n_names, found);
      must(status);
      printf(batch ? ", [" : "[");
      for (int k = 0; k < request.n_names; k++) {
        if (k) printf(", ");
        print_tensor(found[k]);
      }
      printf("]");
      release(values, request.n_inputs);
      release(found, request.n_names);
      fprintf(stderr, "round %d %d\n", i * request.n_batches + batch + 1, request.n_models * request.n_batches);
    }
    printf("]");
    ort->ReleaseSession(session);
  }
  printf("]}\nbocr-onnx>>>\n");
}

int main(int n, char **arguments) {
  pthread_t watcher;
  if (n != 2) return 2;
  folder = arguments[1];
  setvbuf(stderr, NULL, _IOLBF, 0);
  pthread_create(&watcher, NULL, end_with_input, NULL);
  read_request();
  load_runtime();
  if (request.n_models) {
    read_feeds();
    if (request.n_names) print_outputs();
    else measure();
  }
  return 0;
}
