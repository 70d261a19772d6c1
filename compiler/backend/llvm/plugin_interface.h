// What sagejit and libsagejit_llvm.so, the shared object that LLVM is linked into, say to each
// other: C alone, so that neither LLVM nor a C++ runtime shows on the other side.
//
// The kernel crosses as the IR's text. Both sides are of one build, or the generator hashes differ:
// then the plug-in is refused, since its code would be cached as this build's.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct SagejitLlvmRequest {
  const char* kernel;  // ir::print's text
  size_t kernel_bytes;
  const char* cpu;       // "sm_90a"
  const char* features;  // "+ptx80"
};

enum SagejitLlvmStatus : int32_t {
  SAGEJIT_LLVM_PTX = 0,          // the text is PTX; otherwise it is a message
  SAGEJIT_LLVM_UNSUPPORTED = 1,  // this LLVM has no such cpu or feature
  SAGEJIT_LLVM_REFUSED = 2,      // LLVM has an error to report
  SAGEJIT_LLVM_INTERNAL = 3,     // the kernel is malformed
};

// The text belongs to the plug-in until it is released; it ends with a zero, which is not counted.
struct SagejitLlvmReply {
  SagejitLlvmStatus status;
  const char* text;
  size_t bytes;
};

// Lives as long as the plug-in is loaded. Its functions may be called from several threads at once,
// and throw nothing.
struct SagejitLlvmPlugin {
  const char* generator_hash;
  const char* llvm_version;  // "19.1.7"
  void (*compile)(const SagejitLlvmRequest*, SagejitLlvmReply*);
  void (*release)(SagejitLlvmReply*);
};

using SagejitLlvmEntry = const SagejitLlvmPlugin*();

}  // extern "C"

// The plug-in's one symbol, a SagejitLlvmEntry. The number goes up when the structures change.
#define SAGEJIT_LLVM_ENTRY sagejit_llvm_plugin_1
#define SAGEJIT_LLVM_ENTRY_NAME "sagejit_llvm_plugin_1"
