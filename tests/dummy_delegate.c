/* An external TFLite delegate for tests: it computes float32 ADD and MUL of equal shapes on the CPU, and fails on demand.

   Options (key, value), all optional:
     take             "all" (default), "none", or a builtin code: "0" ADD, "18" MUL
     no_device        any: creation fails, saying so
     silent           any: creation fails without a word, as libedgetpu's does with no device
     fail_prepare     the TfLiteStatus that the delegate's Prepare returns: 1 error, 2 delegate error, 3 application error
     fail_kernel      any: the kernel that replaces the operators cannot be prepared
     crash            any: the kernel writes to address 0 when it runs

   The structures are the leading part of those in tensorflow/lite/core/c/common.h, whose order has not changed from
   TensorFlow 2.14 to 2.21; Registration is handed over by value, so it has room for what later versions append. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ERROR = 1, ADD = 0, MUL = 18, TAKE_ALL = -1, TAKE_NONE = -2 };

typedef struct { int size; int data[]; } IntArray;

typedef struct {
  int type;
  float* data;
  IntArray* dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* delegate;
  int buffer_handle;
  char data_is_stale, is_variable;
  struct { int type; void* params; } quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void* user_data;
  void* builtin_data;
} Node;

struct Context;
typedef struct {
  void* (*init)(struct Context*, const char*, size_t);
  void (*free)(struct Context*, void*);
  int (*prepare)(struct Context*, Node*);
  int (*invoke)(struct Context*, Node*);
  const char* (*profiling_string)(const struct Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* appended_later[8];
} Registration;

typedef struct Delegate {
  void* data;
  int (*Prepare)(struct Context*, struct Delegate*);
  int (*CopyFromBufferHandle)(void);
  int (*CopyToBufferHandle)(void);
  void (*FreeBufferHandle)(void);
  int64_t flags;
  void* opaque_delegate_builder;
  int take, fail_prepare, fail_kernel, crash; /* ours */
} Delegate;

typedef struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(struct Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  int (*ResizeTensor)(struct Context*, Tensor*, IntArray*);
  void (*ReportError)(struct Context*, const char*, ...);
  int (*AddTensors)(struct Context*, int, int*);
  int (*GetNodeAndRegistration)(struct Context*, int, Node**, Registration**);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(struct Context*, Registration, const IntArray*, Delegate*);
} Context;

typedef struct { Delegate* delegate; IntArray *nodes, *inputs, *outputs; } Params; /* what init is given */

typedef struct { int code, a, b, out; } Step;
typedef struct { Delegate* delegate; int count; Step* steps; float** own; size_t tensors; } Kernel;

static int holds(const IntArray* array, int value) {
  for (int i = 0; i < array->size; i++)
    if (array->data[i] == value) return 1;
  return 0;
}

static void* kernel_init(Context* context, const char* buffer, size_t length) {
  (void)length;
  const Params* params = (const Params*)buffer;
  Kernel* kernel = calloc(1, sizeof *kernel);
  kernel->delegate = params->delegate;
  kernel->count = params->nodes->size;
  kernel->steps = calloc(kernel->count, sizeof(Step));
  kernel->tensors = context->tensors_size;
  kernel->own = calloc(kernel->tensors, sizeof(float*));
  for (int i = 0; i < kernel->count; i++) {
    Node* node;
    Registration* registration;
    context->GetNodeAndRegistration(context, params->nodes->data[i], &node, &registration);
    int out = node->outputs->data[0];
    Step step = {registration->builtin_code, node->inputs->data[0], node->inputs->data[1], out};
    kernel->steps[i] = step;
    /* what only operators of this kernel pass on has no place in the interpreter's arena any more */
    if (!holds(params->outputs, out)) kernel->own[out] = malloc(context->tensors[out].bytes);
  }
  return kernel;
}

static void kernel_free(Context* context, void* data) {
  (void)context;
  Kernel* kernel = data;
  for (size_t i = 0; i < kernel->tensors; i++) free(kernel->own[i]);
  free(kernel->own);
  free(kernel->steps);
  free(kernel);
}

static int kernel_prepare(Context* context, Node* node) {
  Kernel* kernel = node->user_data;
  if (!kernel->delegate->fail_kernel) return OK;
  context->ReportError(context, "the dummy's kernel cannot be prepared");
  return ERROR;
}

static float* values(Context* context, const Kernel* kernel, int tensor) {
  return kernel->own[tensor] ? kernel->own[tensor] : context->tensors[tensor].data;
}

static int kernel_invoke(Context* context, Node* node) {
  const Kernel* kernel = node->user_data;
  if (kernel->delegate->crash) *(volatile int*)0 = 0;
  for (int i = 0; i < kernel->count; i++) {
    const Step* step = &kernel->steps[i];
    const float *a = values(context, kernel, step->a), *b = values(context, kernel, step->b);
    float* out = values(context, kernel, step->out);
    size_t n = context->tensors[step->out].bytes / sizeof(float);
    for (size_t k = 0; k < n; k++) out[k] = step->code == ADD ? a[k] + b[k] : a[k] * b[k];
  }
  return OK;
}

static int delegate_prepare(Context* context, Delegate* delegate) {
  if (delegate->fail_prepare) {
    context->ReportError(context, "the dummy's Prepare fails on demand");
    return delegate->fail_prepare;
  }
  if (delegate->take == TAKE_NONE) return OK;
  IntArray* plan;
  if (context->GetExecutionPlan(context, &plan) != OK) return ERROR;
  IntArray* taken = malloc(sizeof(int) * (plan->size + 1));
  taken->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != OK) return ERROR;
    int code = registration->builtin_code, able = code == ADD || code == MUL;
    if (able && (delegate->take == TAKE_ALL || delegate->take == code)) taken->data[taken->size++] = plan->data[i];
  }
  Registration registration = {kernel_init, kernel_free, kernel_prepare, kernel_invoke, NULL, 0, "DummyDelegate", 1, {0}};
  int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, taken, delegate);
  free(taken);
  return status;
}

static int wanted(const char* value) {
  if (strcmp(value, "all") == 0) return TAKE_ALL;
  return strcmp(value, "none") == 0 ? TAKE_NONE : atoi(value);
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report_error)(const char*)) {
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->Prepare = delegate_prepare;
  delegate->take = TAKE_ALL;
  for (size_t i = 0; i < count; i++) {
    int silent = strcmp(keys[i], "silent") == 0;
    if (silent || strcmp(keys[i], "no_device") == 0) {
      if (!silent && report_error) report_error("no device found");
      free(delegate);
      return NULL;
    }
    if (strcmp(keys[i], "take") == 0) delegate->take = wanted(values[i]);
    if (strcmp(keys[i], "fail_prepare") == 0) delegate->fail_prepare = atoi(values[i]);
    if (strcmp(keys[i], "fail_kernel") == 0) delegate->fail_kernel = 1;
    if (strcmp(keys[i], "crash") == 0) delegate->crash = 1;
  }
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
