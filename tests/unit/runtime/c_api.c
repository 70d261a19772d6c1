/* A C99 program against the public header alone: one attention on a device, compared with a plain one in
 * double precision. Device: argument 1, else $SAGEJIT_TEST_DEVICE, else the emulator. Returns 77 (skipped)
 * where tools to compile with are missing, 1 if anything is wrong. */
#include <math.h>
#include <sagejit/sagejit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kBatch = 1, kQueryHeads = 2, kKeyHeads = 1, kQueries = 40, kKeys = 70, kDim = 64 };
enum { kQSize = kBatch * kQueryHeads * kQueries * kDim, kKSize = kBatch * kKeyHeads * kKeys * kDim };
enum { kRows = kBatch * kQueryHeads * kQueries };

static const char kVariant[] =
    "c_api {\n"
    "  head_dim = 64\n"
    "  q = int8 per block(128)\n"
    "  k = int8 per block(64)\n"
    "  smooth_k = mean\n"
    "  p = f16\n"
    "  v = f16\n"
    "  pv_accumulator = f32\n"
    "  lse = on\n"
    "}\n";

/* Reports and destroys the error; returns the exit code. */
static int fail(const char *what, sagejit_status status, sagejit_error *error) {
  const int no_tools =
      status == SAGEJIT_E_TOOLCHAIN && strstr(sagejit_error_message(error), "was not found") != NULL;
  fprintf(stderr, "%s: %s: %s\n%s\n", what, sagejit_status_name(status), sagejit_error_message(error),
          sagejit_error_log(error));
  sagejit_error_destroy(error);
  return no_tools ? 77 : 1;
}

/* Normal numbers below 2 in magnitude, by truncation. */
static uint16_t to_half(double value) {
  int exponent = 0;
  const double fraction = frexp(fabs(value), &exponent);
  const uint16_t sign = value < 0 ? 0x8000u : 0u;
  if (fraction == 0 || exponent < -13) return sign;
  return (uint16_t)(sign | ((exponent + 14) << 10) | (int)((fraction * 2 - 1) * 1024));
}

static double from_half(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double fraction = (bits & 1023) / 1024.0;
  const double magnitude = exponent ? ldexp(1 + fraction, exponent - 15) : ldexp(fraction, -14);
  return bits & 0x8000u ? -magnitude : magnitude;
}

static void fill(uint16_t *values, int count, uint32_t seed) {
  int i;
  for (i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = to_half((double)(seed >> 8) / (1 << 23) - 1);
  }
}

/* One row of softmax(q k^T / sqrt(d)) v; returns its log-sum-exp. */
static double attend_row(const uint16_t *q, const uint16_t *k, const uint16_t *v, double *o) {
  double scores[kKeys], largest = -1e30, sum = 0;
  int j, c;
  for (j = 0; j < kKeys; ++j) {
    scores[j] = 0;
    for (c = 0; c < kDim; ++c) scores[j] += from_half(q[c]) * from_half(k[j * kDim + c]);
    scores[j] /= sqrt(kDim);
    if (scores[j] > largest) largest = scores[j];
  }
  memset(o, 0, kDim * sizeof(*o));
  for (j = 0; j < kKeys; ++j) {
    const double p = exp(scores[j] - largest);
    sum += p;
    for (c = 0; c < kDim; ++c) o[c] += p * from_half(v[j * kDim + c]);
  }
  for (c = 0; c < kDim; ++c) o[c] /= sum;
  return largest + log(sum);
}

static int compare(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *o,
                   const float *lse) {
  double dot = 0, norm_a = 0, norm_b = 0, lse_error = 0, expected[kDim];
  int row, c;
  for (row = 0; row < kRows; ++row) {
    const double exact = attend_row(q + row * kDim, k, v, expected);
    if (fabs(exact - lse[row]) > lse_error) lse_error = fabs(exact - lse[row]);
    for (c = 0; c < kDim; ++c) {
      const double got = from_half(o[row * kDim + c]);
      dot += got * expected[c];
      norm_a += got * got;
      norm_b += expected[c] * expected[c];
    }
  }
  printf("cosine %.6f, largest error of lse %.5f\n", dot / sqrt(norm_a * norm_b), lse_error);
  return dot / sqrt(norm_a * norm_b) > 0.9995 && lse_error < 0.02 ? 0 : 1;
}

static sagejit_tensor tensor(sagejit_dtype dtype, void *data, int64_t heads, int64_t tokens) {
  sagejit_tensor t;
  memset(&t, 0, sizeof(t));
  t.struct_size = (uint32_t)sizeof(t);
  t.dtype = dtype;
  t.data = data;
  t.ndim = dtype == SAGEJIT_F32 ? 3 : 4;
  t.shape[0] = kBatch;
  t.shape[1] = heads;
  t.shape[2] = tokens;
  t.shape[3] = dtype == SAGEJIT_F32 ? 0 : kDim;
  t.strides[3] = 1;
  t.strides[2] = dtype == SAGEJIT_F32 ? 1 : kDim;
  t.strides[1] = tokens * t.strides[2];
  t.strides[0] = heads * t.strides[1];
  return t;
}

enum { kNumBuffers = 6 }; /* q, k, v, o, lse, workspace */

static int run_in(void **buffers, const sagejit_device *device, const sagejit_kernel *kernel) {
  static uint16_t q[kQSize], k[kKSize], v[kKSize], o[kQSize];
  static float lse[kRows];
  const size_t bytes[5] = {sizeof(q), sizeof(k), sizeof(v), sizeof(o), sizeof(lse)};
  sagejit_error *error = NULL;
  sagejit_status status = SAGEJIT_OK;
  sagejit_attention_args args;
  sagejit_tensor tensors[5];
  int i;

  fill(q, kQSize, 1);
  fill(k, kKSize, 2);
  fill(v, kKSize, 3);
  for (i = 0; i < 5; ++i) {
    status = sagejit_device_alloc(device, bytes[i], &buffers[i], &error);
    if (status) return fail("alloc", status, error);
  }
  status = sagejit_device_copy_in(device, buffers[0], q, sizeof(q), NULL, &error);
  if (!status) status = sagejit_device_copy_in(device, buffers[1], k, sizeof(k), NULL, &error);
  if (!status) status = sagejit_device_copy_in(device, buffers[2], v, sizeof(v), NULL, &error);
  if (status) return fail("copy in", status, error);

  tensors[0] = tensor(SAGEJIT_F16, buffers[0], kQueryHeads, kQueries);
  tensors[1] = tensor(SAGEJIT_F16, buffers[1], kKeyHeads, kKeys);
  tensors[2] = tensor(SAGEJIT_F16, buffers[2], kKeyHeads, kKeys);
  tensors[3] = tensor(SAGEJIT_F16, buffers[3], kQueryHeads, kQueries);
  tensors[4] = tensor(SAGEJIT_F32, buffers[4], kQueryHeads, kQueries);
  memset(&args, 0, sizeof(args));
  args.struct_size = (uint32_t)sizeof(args);
  args.q = &tensors[0];
  args.k = &tensors[1];
  args.v = &tensors[2];
  args.o = &tensors[3];
  args.lse = &tensors[4];
  status = sagejit_kernel_workspace(kernel, &args, &args.workspace_bytes, &error);
  if (status) return fail("workspace", status, error);
  status = sagejit_device_alloc(device, args.workspace_bytes, &buffers[5], &error);
  if (status) return fail("alloc", status, error);
  args.workspace = buffers[5];

  /* The phases apart, to use both. */
  status = sagejit_kernel_launch(kernel, &args, SAGEJIT_QUANTIZE, NULL, &error);
  if (!status) status = sagejit_kernel_launch(kernel, &args, SAGEJIT_ATTEND, NULL, &error);
  if (status) return fail("launch", status, error);
  status = sagejit_device_copy_out(device, o, buffers[3], sizeof(o), NULL, &error);
  if (!status) status = sagejit_device_copy_out(device, lse, buffers[4], sizeof(lse), NULL, &error);
  if (status) return fail("copy out", status, error);
  return compare(q, k, v, o, lse);
}

static int run(const sagejit_device *device, const sagejit_kernel *kernel) {
  void *buffers[kNumBuffers] = {NULL, NULL, NULL, NULL, NULL, NULL};
  const int result = run_in(buffers, device, kernel);
  int i;
  for (i = 0; i < kNumBuffers; ++i) sagejit_device_free(device, buffers[i], NULL);
  return result;
}

int main(int argc, char **argv) {
  const char *from_environment = getenv("SAGEJIT_TEST_DEVICE");
  const char *name = argc > 1 ? argv[1] : from_environment ? from_environment : "emulator";
  sagejit_context_options options;
  sagejit_context *context = NULL;
  sagejit_device *device = NULL;
  sagejit_variant *variant = NULL;
  sagejit_kernel *kernel = NULL;
  sagejit_error *error = NULL;
  sagejit_status status;
  char text[4096];
  size_t bytes = sizeof(text);
  int result;

  memset(&options, 0, sizeof(options));
  options.struct_size = (uint32_t)sizeof(options);
  options.flags = SAGEJIT_NO_DISK_CACHE;
  status = sagejit_context_create(&options, &context, &error);
  if (status) return fail("context", status, error);
  status = sagejit_device_open(name, &device, &error);
  if (status) return fail("device", status, error);
  status = sagejit_variant_parse(context, kVariant, sizeof(kVariant) - 1, NULL, &variant, &error);
  if (status) return fail("variant", status, error);
  status = sagejit_kernel_get(context, variant, device, &kernel, &error);
  if (status) {
    result = fail("kernel", status, error);
  } else {
    /* The kernel needs neither context nor variant any more. */
    sagejit_context_destroy(context);
    sagejit_variant_destroy(variant);
    context = NULL;
    variant = NULL;
    result = sagejit_kernel_describe(kernel, text, &bytes) ? 1 : run(device, kernel);
    printf("%s", text);
  }
  sagejit_kernel_destroy(kernel);
  sagejit_variant_destroy(variant);
  sagejit_device_destroy(device);
  sagejit_context_destroy(context);
  return result;
}
