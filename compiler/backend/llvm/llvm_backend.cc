#include "compiler/backend/llvm/llvm_backend.h"

#include <dlfcn.h>

#include <string_view>
#include <vector>

#include "compiler/backend/common/ptx_version.h"
#include "compiler/backend/llvm/plugin_interface.h"
#include "compiler/support/error.h"
#include "generator_hash.h"

namespace sagejit {
namespace {

std::string features_of(int ptx_version) {
  return fmt::format("+ptx{}", ptx_version);
}

// Owns a reply's text.
struct ReplyGuard {
  const SagejitLlvmPlugin& plugin;
  SagejitLlvmReply reply = {};
  ~ReplyGuard() {
    if (reply.text) plugin.release(&reply);
  }
};

class LlvmBackend final : public Backend {
 public:
  explicit LlvmBackend(std::shared_ptr<const LlvmPlugin> plugin) : plugin_(std::move(plugin)) {}

  std::string name() const override { return plugin_->version(); }
  std::vector<std::string> flags(const Target& target) const override {
    return {fmt::format("-mcpu={}", target.name), "-mattr=" + features_of(target.ptx_version)};
  }
  std::string to_ptx(const ir::Function& kernel, const Target& target) const override {
    return plugin_->to_ptx(kernel, target);
  }

 private:
  std::shared_ptr<const LlvmPlugin> plugin_;
};

}  // namespace

struct LlvmPlugin::Library {
  const SagejitLlvmPlugin* plugin = nullptr;
  std::string version;
};

LlvmPlugin::LlvmPlugin(std::unique_ptr<Library> library) : library_(std::move(library)) {}
LlvmPlugin::~LlvmPlugin() = default;

std::unique_ptr<LlvmPlugin> LlvmPlugin::load(const std::string& library) {
  // It stays in the process: LLVM is not made to be unloaded.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) fail(ErrorKind::kToolchain, "{}", dlerror());
  const auto entry = reinterpret_cast<SagejitLlvmEntry*>(dlsym(handle, SAGEJIT_LLVM_ENTRY_NAME));
  if (!entry) {
    fail(ErrorKind::kToolchain, "it is not sagejit's LLVM plug-in, or one of another release");
  }
  auto loaded = std::make_unique<Library>();
  loaded->plugin = entry();
  if (std::string_view(loaded->plugin->generator_hash) != kGeneratorHash) {
    fail(ErrorKind::kToolchain, "it belongs to another build of sagejit");
  }
  loaded->version = fmt::format("llvm {}", loaded->plugin->llvm_version);
  return std::unique_ptr<LlvmPlugin>(new LlvmPlugin(std::move(loaded)));
}

const std::string& LlvmPlugin::version() const {
  return library_->version;
}

std::string LlvmPlugin::to_ptx(const ir::Function& kernel, const Target& target) const {
  const std::string text = ir::print(kernel), cpu(target.name),
                    features = features_of(ptx_version_for(kernel, target));
  const SagejitLlvmRequest request = {text.data(), text.size(), cpu.c_str(), features.c_str()};
  ReplyGuard guard{*library_->plugin};
  library_->plugin->compile(&request, &guard.reply);
  std::string reply(guard.reply.text, guard.reply.bytes);
  switch (guard.reply.status) {
    case SAGEJIT_LLVM_PTX:
      return reply;
    case SAGEJIT_LLVM_UNSUPPORTED:
      fail(ErrorKind::kUnsupported, "{}; the back end 'ptx' knows it (--backend ptx)", reply);
    case SAGEJIT_LLVM_REFUSED:
      throw Error(ErrorKind::kToolchain,
                  fmt::format("{} refuses the generated kernel for {}", version(), target.name),
                  reply);
    case SAGEJIT_LLVM_INTERNAL:
      break;
  }
  fail(ErrorKind::kInternal, "LLVM back end: {}", reply);
}

std::shared_ptr<const Backend> make_llvm_backend(std::shared_ptr<const LlvmPlugin> plugin) {
  return std::make_shared<LlvmBackend>(std::move(plugin));
}

}  // namespace sagejit
