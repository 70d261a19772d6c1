/* sagejit: just-in-time compiled quantized attention. C interface (C99).
 *
 * Life of a program:
 *   sagejit_context_create      once; holds the caches and the compiler
 *   sagejit_device_open         a GPU, or the emulator on machines without one
 *   sagejit_variant_parse       what to compute, from text
 *   sagejit_kernel_get          compiles, or finds in memory or on disk
 *   sagejit_kernel_workspace    how much scratch memory a problem needs
 *   sagejit_kernel_launch       enqueues it; as often as you like
 * or, for a model whose layers take different variants, sagejit_policy_parse and, for each layer,
 * sagejit_policy_find in place of sagejit_variant_parse.
 *
 * Threads: through a const handle, concurrent calls are fine; a call that takes a non-const handle
 * needs it to itself. Handles may be destroyed in any order: each keeps alive what it needs.
 * Destroying NULL does nothing.
 *
 * Errors: every function that can fail returns a status. Where it takes a `sagejit_error **err`,
 * err may be NULL; otherwise *err becomes NULL on success and an error that the caller destroys on
 * failure. On failure an out-parameter for a handle becomes NULL, and all handles that went in stay
 * usable. specs/errors.md has a paragraph on each status.
 *
 * Structures begin with struct_size, which the caller sets to sizeof the structure; zero the rest
 * before filling it in. Fields are only ever appended. A structure longer than the library knows is
 * accepted if what it does not know is zero.
 *
 * Kernels are launched into the caller's stream. The GPU's context is that of the device: the one
 * that was current in sagejit_device_open if it belongs to the GPU, else the primary one. The
 * caller's current context is left as it was. */
#ifndef SAGEJIT_SAGEJIT_H_
#define SAGEJIT_SAGEJIT_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SAGEJIT_API __attribute__((visibility("default")))
#else
#define SAGEJIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* 10000 * major + 100 * minor + patch */
#define SAGEJIT_VERSION 100u

/* Values are frozen; new ones are appended. */
typedef enum sagejit_status {
  SAGEJIT_OK = 0,
  SAGEJIT_E_ARGUMENT = 1, /* the caller passed something wrong; the message names it and the mend */
  SAGEJIT_E_SPEC = 2, /* the variant text is wrong; the message has file:line:column and a caret */
  SAGEJIT_E_UNSUPPORTED = 3, /* valid, but beyond a limit, which the message names */
  SAGEJIT_E_NOT_FOUND = 4,   /* compiling is off and the kernel is in no cache */
  SAGEJIT_E_TOOLCHAIN = 5,   /* NVRTC or an assembler is missing or refused the kernel; see
                                sagejit_error_log */
  SAGEJIT_E_DEVICE = 6,      /* the GPU driver or the emulator reported a fault */
  SAGEJIT_E_IO = 7,          /* a file could not be read or written */
  SAGEJIT_E_MEMORY = 8,      /* host or device memory ran out */
  SAGEJIT_E_INTERNAL = 9     /* a defect of sagejit */
} sagejit_status;

/* Caches, compiler, options; share freely. */
typedef struct sagejit_context sagejit_context;
/* A GPU or the emulator; share freely. */
typedef struct sagejit_device sagejit_device;
/* A checked variant; immutable; share freely. */
typedef struct sagejit_variant sagejit_variant;
/* Code loaded on one device; immutable; share freely. */
typedef struct sagejit_kernel sagejit_kernel;
/* Which variant each layer of a model takes; immutable; share freely. */
typedef struct sagejit_policy sagejit_policy;
/* Owned by the caller; readable from any thread. */
typedef struct sagejit_error sagejit_error;
/* A CUstream or cudaStream_t; NULL: the default one. Ignored by the emulator, which has finished
 * when a call returns. */
typedef struct CUstream_st* sagejit_stream;

/* Of the library that is running; the header's is SAGEJIT_VERSION. */
SAGEJIT_API uint32_t sagejit_version(void);

/* "SAGEJIT_E_SPEC"; "unknown status" for other numbers. Static storage. */
SAGEJIT_API const char* sagejit_status_name(sagejit_status status);

/* ---- Errors. Strings live as long as the error and are never NULL. A NULL error reads as
 * SAGEJIT_OK. */

SAGEJIT_API sagejit_status sagejit_error_status(const sagejit_error* error);
SAGEJIT_API const char* sagejit_error_message(const sagejit_error* error);
/* The output of the toolchain or the driver; often "". */
SAGEJIT_API const char* sagejit_error_log(const sagejit_error* error);
SAGEJIT_API void sagejit_error_destroy(sagejit_error* error);

/* ---- Context */

enum {
  /* Never compile: a kernel that is in no cache is SAGEJIT_E_NOT_FOUND. */
  SAGEJIT_NO_JIT = 1u,
  /* Neither read nor write the disk. */
  SAGEJIT_NO_DISK_CACHE = 2u,
  /* Compile on every disk hit too, and compare: SAGEJIT_E_INTERNAL if they differ. */
  SAGEJIT_VERIFY_CACHE = 4u
};

enum { SAGEJIT_LOG_WARNING = 1, SAGEJIT_LOG_INFO = 2 };

typedef struct sagejit_context_options {
  uint32_t struct_size;
  uint32_t flags; /* SAGEJIT_NO_JIT and the like */
  /* Absolute; created with mode 0700, refused if others can write it. NULL: $SAGEJIT_CACHE_DIR,
   * else $XDG_CACHE_HOME/sagejit, else ~/.cache/sagejit. */
  const char* cache_dir;
  /* Path of libnvrtc.so. NULL: $SAGEJIT_NVRTC, else the usual places. */
  const char* nvrtc;
  /* Receives warnings (SAGEJIT_LOG_WARNING); may be called from any thread. NULL: they are dropped.
   */
  void (*log)(void* user, int level, const char* message);
  void* log_user;
  /* What turns kernels into PTX: "ptx" (built in), "llvm" (where libsagejit_llvm.so is beside the
   * library, or $SAGEJIT_LLVM is its path) or "cuda" (by way of CUDA C++, with NVRTC). NULL or
   * "auto": the fastest way. The structure may also end before this field. */
  const char* backend;
  /* What turns PTX into machine code: "ptxas" (of a CUDA toolkit), "nvrtc" or "driver". NULL or
   * "auto": the fastest of those that are here. Unused on the emulator, which reads PTX. */
  const char* assembler;
  /* Path of ptxas. NULL: $SAGEJIT_PTXAS, else the usual places. */
  const char* ptxas;
} sagejit_context_options;

typedef struct sagejit_counters {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t memory_hits;
  uint64_t disk_hits;
  uint64_t misses;   /* in neither cache */
  uint64_t compiles; /* completed; verification included */
  uint64_t stores;   /* entries written to disk */
} sagejit_counters;

/* Environment variables are read here, once. options may be NULL. An unusable cache directory is no
 * error: the context works without, after one warning to the log. */
SAGEJIT_API sagejit_status sagejit_context_create(const sagejit_context_options* options,
                                                  sagejit_context** out, sagejit_error** err);
SAGEJIT_API void sagejit_context_destroy(sagejit_context* context);
SAGEJIT_API sagejit_status sagejit_context_counters(const sagejit_context* context,
                                                    sagejit_counters* out);

/* ---- Devices. Addresses are device addresses; on the emulator, host addresses of any memory. */

/* name: "auto" (the first usable GPU, else the emulator), "cuda:0", "emulator" (an sm_80) or
 * "emulator:sm_90a". */
SAGEJIT_API sagejit_status sagejit_device_open(const char* name, sagejit_device** out,
                                               sagejit_error** err);
SAGEJIT_API void sagejit_device_destroy(sagejit_device* device);
/* "cuda:0", "NVIDIA H100 80GB HBM3", "sm_90a"; they live as long as the device; NULL for NULL. */
SAGEJIT_API const char* sagejit_device_name(const sagejit_device* device);
SAGEJIT_API const char* sagejit_device_product(const sagejit_device* device);
SAGEJIT_API const char* sagejit_device_target(const sagejit_device* device);

/* For programs without a CUDA library of their own. Memory is aligned to 256 bytes; copies return
 * when done. */
SAGEJIT_API sagejit_status sagejit_device_alloc(const sagejit_device* device, size_t bytes,
                                                void** out, sagejit_error** err);
SAGEJIT_API sagejit_status sagejit_device_free(const sagejit_device* device, void* memory,
                                               sagejit_error** err);
SAGEJIT_API sagejit_status sagejit_device_copy_in(const sagejit_device* device, void* to,
                                                  const void* from_host, size_t bytes,
                                                  sagejit_stream stream, sagejit_error** err);
SAGEJIT_API sagejit_status sagejit_device_copy_out(const sagejit_device* device, void* to_host,
                                                   const void* from, size_t bytes,
                                                   sagejit_stream stream, sagejit_error** err);
SAGEJIT_API sagejit_status sagejit_device_synchronize(const sagejit_device* device,
                                                      sagejit_stream stream, sagejit_error** err);

/* ---- Variants */

typedef struct sagejit_variant_options {
  uint32_t struct_size;
  uint32_t num_overrides;
  const char* file_name; /* for messages; NULL: "<variant>" */
  /* Which of several: a name, "head_dim=64", "name[head_dim=64]". NULL: the text must hold exactly
   * one. */
  const char* selector;
  /* "key=value", as if it stood last in each variant. */
  const char* const* overrides;
} sagejit_variant_options;

/* The text need not end in NUL. options may be NULL. Warnings go to the context's log. */
SAGEJIT_API sagejit_status sagejit_variant_parse(const sagejit_context* context, const char* text,
                                                 size_t bytes,
                                                 const sagejit_variant_options* options,
                                                 sagejit_variant** out, sagejit_error** err);
SAGEJIT_API void sagejit_variant_destroy(sagejit_variant* variant);
/* Live as long as the variant; NULL for NULL. The text is canonical: parsing it gives the variant
 * back. */
SAGEJIT_API const char* sagejit_variant_name(const sagejit_variant* variant);
SAGEJIT_API const char* sagejit_variant_text(const sagejit_variant* variant);

/* ---- Policies: which variant each layer of a model takes at each step, as `sagejit calibrate`
 * writes them; specs/policy_format.md. */

/* The text need not end in NUL. file_name: for messages; NULL: "<policy>". A wrong text is
 * SAGEJIT_E_SPEC; the message has every error with file:line:column. */
SAGEJIT_API sagejit_status sagejit_policy_parse(const char* text, size_t bytes,
                                                const char* file_name, sagejit_policy** out,
                                                sagejit_error** err);
SAGEJIT_API void sagejit_policy_destroy(sagejit_policy* policy);
/* The variant of a layer, by the name that the policy gives it, at a step from 0 on; the policy's
 * default where it says nothing of them. The caller destroys the handle. Variants that are equal
 * share kernels. */
SAGEJIT_API sagejit_status sagejit_policy_find(const sagejit_policy* policy, const char* layer,
                                               int64_t step, sagejit_variant** out,
                                               sagejit_error** err);

/* ---- Kernels */

/* Compiles unless the kernel is in memory or on disk. May take seconds; never call it on a path
 * that must be quick. The kernel belongs to the device and stays usable after context, variant and
 * device handles are destroyed. */
SAGEJIT_API sagejit_status sagejit_kernel_get(const sagejit_context* context,
                                              const sagejit_variant* variant,
                                              const sagejit_device* device, sagejit_kernel** out,
                                              sagejit_error** err);
SAGEJIT_API void sagejit_kernel_destroy(sagejit_kernel* kernel);

/* Element types; values are frozen. */
typedef enum sagejit_dtype { SAGEJIT_F16 = 1, SAGEJIT_BF16 = 2, SAGEJIT_F32 = 3 } sagejit_dtype;

/* A tensor of the caller's, borrowed for the call (the memory: until the launch has run). The order
 * of axes is logical and fixed; the layout in memory is what the strides say. */
typedef struct sagejit_tensor {
  uint32_t struct_size;
  int32_t dtype; /* sagejit_dtype */
  void* data;    /* device address */
  int32_t ndim;
  uint32_t reserved; /* 0 */
  int64_t shape[4];
  int64_t strides[4]; /* in elements */
} sagejit_tensor;

/* One forward call:  o = softmax(q k^T ...) v,  as the variant says.
 *   q [b, hq, m, d]   k [b, hkv, n, d]   v [b, hkv, n, dv]   o [b, hq, m, dv]   lse [b, hq, m], f32
 * hq is a multiple of hkv: query head i reads key head i / (hq / hkv). lse is the natural logarithm
 * of the sum of exp(scores), of the true scores: what smoothing subtracts is added back. Rows that
 * see no key have o = 0 and lse = -inf. b, m and n may be 0. Strides: the last axis 1; rows of q,
 * k, v, o on 16-byte boundaries (for 16-bit types a multiple of 8 elements); none negative; an
 * input may have stride 0. Offsets are 64-bit. Data of q, k, v, o is aligned to 16 bytes, of lse
 * to 4. Inputs are not written. */
typedef struct sagejit_attention_args {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  const sagejit_tensor* q;
  const sagejit_tensor* k;
  const sagejit_tensor* v;
  /* May be NULL while only quantizing, and for sagejit_kernel_workspace. */
  const sagejit_tensor* o;
  /* Given if and only if the variant outputs it; may be NULL where o may. */
  const sagejit_tensor* lse;
  void* workspace;        /* device address, aligned to 256 bytes; contents need no preparation */
  size_t workspace_bytes; /* at least what sagejit_kernel_workspace says */
} sagejit_attention_args;

enum {
  /* Statistics and quantization: reads q, k, v; writes the workspace. */
  SAGEJIT_QUANTIZE = 1u,
  /* Attention: reads the workspace, and v where the variant leaves it as it is; writes o and lse.
   */
  SAGEJIT_ATTEND = 2u,
  SAGEJIT_BOTH = 3u
};

/* Bytes of workspace for a problem; data pointers and the workspace fields are not looked at. What
 * it is made of, `sagejit compile --emit report` lists: each buffer with its size as an expression.
 */
SAGEJIT_API sagejit_status sagejit_kernel_workspace(const sagejit_kernel* kernel,
                                                    const sagejit_attention_args* args,
                                                    size_t* bytes, sagejit_error** err);

/* Enqueues the phases on the stream. On success it allocates nothing, takes no lock of its own,
 * waits for nothing and reads no environment; it may be captured into a CUDA graph. All arguments
 * are checked before anything is enqueued. Launches that share a workspace must be ordered by the
 * caller (same stream, or events). Phases called apart must see the same shapes and strides and an
 * untouched workspace; data pointers that a phase does not read may be NULL. */
SAGEJIT_API sagejit_status sagejit_kernel_launch(const sagejit_kernel* kernel,
                                                 const sagejit_attention_args* args,
                                                 uint32_t phases, sagejit_stream stream,
                                                 sagejit_error** err);

/* Lines "key: value": variant, device, target, back end, assembler (where there is machine code),
 * schedule, origin (memory, disk or jit: where sagejit_kernel_get found it), and per launch its
 * registers and shared memory. *bytes: in, the size of buffer; out, the size needed, NUL included.
 * buffer may be NULL to ask for it. A buffer that is too small holds the beginning, NUL-terminated,
 * and the status is SAGEJIT_E_ARGUMENT. */
SAGEJIT_API sagejit_status sagejit_kernel_describe(const sagejit_kernel* kernel, char* buffer,
                                                   size_t* bytes);

#ifdef __cplusplus
}
#endif
#endif /* SAGEJIT_SAGEJIT_H_ */
