#include "compiler/backend/ptx/ptx_backend.h"

#include "compiler/backend/ptx/print_ptx.h"

namespace sagejit {
namespace {

class PtxBackend final : public Backend {
 public:
  // The cache keys' hash over the compiler's sources says which version of it.
  std::string name() const override { return "ptx"; }
  std::vector<std::string> flags(const Target&) const override { return {}; }
  std::string to_ptx(const ir::Function& kernel, const Target& target) const override {
    return print_ptx(kernel, target);
  }
};

}  // namespace

std::shared_ptr<const Backend> make_ptx_backend() {
  return std::make_shared<PtxBackend>();
}

}  // namespace sagejit
