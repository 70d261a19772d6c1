#include "compiler/backend/toolchain.h"

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/cuda/cuda_backend.h"
#include "compiler/backend/cuda/print_cuda.h"
#include "compiler/support/error.h"
#include "compiler/support/stopwatch.h"

namespace sagejit {
namespace {

std::string key_line(std::string_view role, std::string_view name,
                     const std::vector<std::string>& flags) {
  return fmt::format("{}: {}{}{}\n", role, name, flags.empty() ? "" : " ", fmt::join(flags, " "));
}

class StagedToolchain final : public Toolchain {
 public:
  StagedToolchain(std::shared_ptr<const Backend> backend,
                  std::shared_ptr<const Assembler> assembler)
      : backend_(std::move(backend)), assembler_(std::move(assembler)) {}

  std::string backend() const override { return backend_->name(); }
  std::string assembler() const override { return assembler_ ? assembler_->name() : ""; }

  std::string key_text(const Target& target, bool assemble) const override {
    std::string text = key_line("backend", backend_->name(), backend_->flags(target));
    if (!assemble) return text;
    const Assembler& behind = required_assembler();
    return text + key_line("assembler", behind.name(), behind.flags(target));
  }

  KernelCode compile(const ir::Function& kernel, const Target& target,
                     bool assemble) const override {
    Stopwatch watch;
    KernelCode code;
    code.ptx = backend_->to_ptx(kernel, target);
    code.backend_ms = watch.lap_ms();
    if (!assemble) return code;
    code.machine_code = required_assembler().assemble(code.ptx, target);
    check_machine_code(code.machine_code, assembler_->name());
    code.assemble_ms = watch.lap_ms();
    return code;
  }

 private:
  const Assembler& required_assembler() const {
    if (!assembler_) fail(ErrorKind::kArgument, "machine code needs an assembler; there is none");
    return *assembler_;
  }

  std::shared_ptr<const Backend> backend_;
  std::shared_ptr<const Assembler> assembler_;
};

class NvrtcToolchain final : public Toolchain {
 public:
  explicit NvrtcToolchain(std::shared_ptr<const Nvrtc> nvrtc) : nvrtc_(std::move(nvrtc)) {}

  std::string backend() const override { return cuda_backend_name(*nvrtc_); }
  std::string assembler() const override { return nvrtc_->version(); }

  std::string key_text(const Target& target, bool assemble) const override {
    std::string text = key_line("backend", backend(), nvrtc_->flags(target, assemble));
    if (assemble) text += key_line("assembler", assembler() + " in one go", {});
    return text;
  }

  KernelCode compile(const ir::Function& kernel, const Target& target,
                     bool assemble) const override {
    Stopwatch watch;
    NvrtcOutput output = nvrtc_->compile(print_cuda(kernel), target, assemble);
    KernelCode code;
    code.ptx = std::move(output.ptx);
    if (assemble) {
      code.machine_code = {std::move(output.cubin), parse_ptxas_report(output.log), output.log};
      check_machine_code(code.machine_code, assembler());
    }
    code.backend_ms = watch.lap_ms();
    return code;
  }

 private:
  std::shared_ptr<const Nvrtc> nvrtc_;
};

}  // namespace

std::unique_ptr<Toolchain> make_toolchain(std::shared_ptr<const Backend> backend,
                                          std::shared_ptr<const Assembler> assembler) {
  return std::make_unique<StagedToolchain>(std::move(backend), std::move(assembler));
}

std::unique_ptr<Toolchain> make_nvrtc_toolchain(std::shared_ptr<const Nvrtc> nvrtc) {
  return std::make_unique<NvrtcToolchain>(std::move(nvrtc));
}

}  // namespace sagejit
