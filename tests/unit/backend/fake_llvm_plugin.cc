// Stands in for libsagejit_llvm.so: answers by the kernel's name, and counts what it handed out.
#include <cstring>
#include <string>

#include "compiler/backend/llvm/plugin_interface.h"
#ifdef SAGEJIT_ANOTHER_BUILD
constexpr char kGeneratorHash[] = "another";
#else
#include "generator_hash.h"
#endif

namespace {

int g_num_texts = 0;

void compile(const SagejitLlvmRequest* request, SagejitLlvmReply* reply) {
  const std::string kernel(request->kernel, request->kernel_bytes);
  const SagejitLlvmStatus status = kernel.find("@unsupported") != kernel.npos
                                       ? SAGEJIT_LLVM_UNSUPPORTED
                                   : kernel.find("@refused") != kernel.npos ? SAGEJIT_LLVM_REFUSED
                                   : kernel.find("@broken") != kernel.npos  ? SAGEJIT_LLVM_INTERNAL
                                                                            : SAGEJIT_LLVM_PTX;
  const std::string text = std::string(request->cpu) + " " + request->features + " after " +
                           std::to_string(g_num_texts) + " kept";
  ++g_num_texts;
  *reply = {status, strdup(text.c_str()), text.size()};
}

void release(SagejitLlvmReply* reply) {
  --g_num_texts;
  free(const_cast<char*>(reply->text));
  *reply = {};
}

constexpr SagejitLlvmPlugin kPlugin = {kGeneratorHash, "0.1", compile, release};

}  // namespace

extern "C" __attribute__((visibility("default"))) const SagejitLlvmPlugin* SAGEJIT_LLVM_ENTRY() {
  return &kPlugin;
}
