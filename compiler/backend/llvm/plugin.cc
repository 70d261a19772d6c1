// The shared object's one entry (plugin_interface.h).
#include <llvm/Config/llvm-config.h>
#include <llvm/Support/ErrorHandling.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>

#include "compiler/backend/llvm/emit_ptx.h"
#include "compiler/backend/llvm/lower.h"
#include "compiler/backend/llvm/plugin_interface.h"
#include "compiler/support/error.h"
#include "generator_hash.h"

namespace sagejit::llvm_backend {
namespace {

// LLVM ends the process on what it calls fatal, unless the handler does not return. Nothing of the
// compilation is destroyed by the throw, and LLVM may be left half-way: it is not used again.
std::atomic<bool> g_is_broken = false;

[[noreturn]] void on_fatal_error(void*, const char* reason, bool) {
  g_is_broken = true;
  throw Error(ErrorKind::kToolchain, reason);
}

SagejitLlvmStatus status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUnsupported:
      return SAGEJIT_LLVM_UNSUPPORTED;
    case ErrorKind::kToolchain:
      return SAGEJIT_LLVM_REFUSED;
    default:
      return SAGEJIT_LLVM_INTERNAL;
  }
}

std::string compile_text(const SagejitLlvmRequest& request) {
  static std::once_flag once;
  std::call_once(once, [] { llvm::install_fatal_error_handler(on_fatal_error); });
  if (g_is_broken) {
    fail(ErrorKind::kToolchain, "LLVM met a fatal error before and is not used again");
  }
  llvm::LLVMContext context;
  const ir::Function kernel = ir::parse({request.kernel, request.kernel_bytes});
  const std::unique_ptr<llvm::Module> module = lower(kernel, context);
  return emit_ptx(*module, request.cpu, request.features);
}

void answer(SagejitLlvmReply& reply, SagejitLlvmStatus status, std::string_view text) noexcept {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) std::abort();  // for want of the memory to say so
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  reply = {status, copy, text.size()};
}

void compile(const SagejitLlvmRequest* request, SagejitLlvmReply* reply) noexcept {
  try {
    answer(*reply, SAGEJIT_LLVM_PTX, compile_text(*request));
  } catch (const Error& error) {
    answer(*reply, status_of(error.kind()), error.message());
  } catch (const std::exception& error) {
    answer(*reply, SAGEJIT_LLVM_INTERNAL, error.what());
  }
}

void release(SagejitLlvmReply* reply) noexcept {
  std::free(const_cast<char*>(reply->text));
  *reply = {};
}

constexpr SagejitLlvmPlugin kPlugin = {kGeneratorHash, LLVM_VERSION_STRING, compile, release};

}  // namespace
}  // namespace sagejit::llvm_backend

extern "C" __attribute__((visibility("default"))) const SagejitLlvmPlugin* SAGEJIT_LLVM_ENTRY() {
  return &sagejit::llvm_backend::kPlugin;
}
