#include "compiler/backend/assemble/nvrtc_assembler.h"

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/assemble/stub_kernel.h"
#include "compiler/backend/common/ptx_version.h"

namespace sagejit {
namespace {

class NvrtcAssembler final : public Assembler {
 public:
  explicit NvrtcAssembler(std::shared_ptr<const Nvrtc> nvrtc) : nvrtc_(std::move(nvrtc)) {}

  std::string name() const override { return nvrtc_->version(); }
  std::vector<std::string> flags(const Target& target) const override {
    return nvrtc_->flags(target, true);
  }
  int ptx_version() const override {
    return ptx_version_of_cuda(nvrtc_->release().major, nvrtc_->release().minor);
  }
  MachineCode assemble(std::string_view ptx, const Target& target) const override {
    NvrtcOutput output = nvrtc_->compile(stub_kernel(ptx), target, true);
    return {std::move(output.cubin), parse_ptxas_report(output.log), output.log};
  }

 private:
  std::shared_ptr<const Nvrtc> nvrtc_;
};

}  // namespace

std::shared_ptr<const Assembler> make_nvrtc_assembler(std::shared_ptr<const Nvrtc> nvrtc) {
  return std::make_shared<NvrtcAssembler>(std::move(nvrtc));
}

}  // namespace sagejit
