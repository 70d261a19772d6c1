#include "compiler/backend/cuda/cuda_backend.h"

#include "compiler/backend/cuda/print_cuda.h"

namespace sagejit {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::shared_ptr<const Nvrtc> nvrtc) : nvrtc_(std::move(nvrtc)) {}

  std::string name() const override { return cuda_backend_name(*nvrtc_); }
  std::vector<std::string> flags(const Target& target) const override {
    return nvrtc_->flags(target, false);
  }
  std::string to_ptx(const ir::Function& kernel, const Target& target) const override {
    return nvrtc_->compile(print_cuda(kernel), target, false).ptx;
  }

 private:
  std::shared_ptr<const Nvrtc> nvrtc_;
};

}  // namespace

std::shared_ptr<const Backend> make_cuda_backend(std::shared_ptr<const Nvrtc> nvrtc) {
  return std::make_shared<CudaBackend>(std::move(nvrtc));
}

std::string cuda_backend_name(const Nvrtc& nvrtc) {
  return "cuda " + nvrtc.version();
}

}  // namespace sagejit
