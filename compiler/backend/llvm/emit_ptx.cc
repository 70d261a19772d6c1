#include "compiler/backend/llvm/emit_ptx.h"

#include <llvm/ADT/SmallString.h>
#include <llvm/Analysis/CGSCCPassManager.h>
#include <llvm/Analysis/LoopAnalysisManager.h>
#include <llvm/IR/DiagnosticInfo.h>
#include <llvm/IR/DiagnosticPrinter.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/PassManager.h>
#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/Transforms/Scalar/DCE.h>
#include <llvm/Transforms/Scalar/EarlyCSE.h>
#include <llvm/Transforms/Utils/Mem2Reg.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "compiler/support/error.h"

namespace sagejit::llvm_backend {
namespace {

constexpr const char* kTriple = "nvptx64-nvidia-cuda";

// PTX has registers without end, and whoever allocates those of the GPU sees all of the kernel:
// what LLVM moves to spare some only ties the assembler's hands. Of the shipped kernels, some of
// which are sized to their last register, none spills without these passes, and some do with them
// (ptxas 13.0). -enable-misched would gain 1..2 % in Hopper kernels, but moves what makes fragments
// behind the wgmma.fence that must follow it.
constexpr const char* kOptions[] = {"sagejit", "-disable-lsr", "-disable-machine-sink"};

// Options are LLVM's only way to switch these off, and are the whole process's: of this shared
// object's LLVM, which nobody else sees.
void set_options() {
  std::string error;
  llvm::raw_string_ostream stream(error);
  if (!llvm::cl::ParseCommandLineOptions(std::size(kOptions), kOptions, "", &stream)) {
    fail(ErrorKind::kInternal, "LLVM {} does not know an option: {}", LLVM_VERSION_STRING, error);
  }
}

const llvm::Target& nvptx() {
  static std::once_flag once;
  std::call_once(once, [] {
    set_options();
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
  std::string error;
  const llvm::Target* target = llvm::TargetRegistry::lookupTarget(kTriple, error);
  if (!target) fail(ErrorKind::kInternal, "LLVM has no NVPTX: {}", error);
  return *target;
}

// The last of LLVM's cpus: sm_90a sorts behind sm_90, sm_101 behind both.
std::string newest_cpu(const llvm::MCSubtargetInfo& known) {
  std::string newest;
  for (const llvm::SubtargetSubTypeKV& cpu : known.getAllProcessorDescriptions()) {
    const std::string name = cpu.Key;
    if (std::make_pair(name.size() - name.ends_with('a'), name) >=
        std::make_pair(newest.size() - newest.ends_with('a'), newest)) {
      newest = name;
    }
  }
  return newest;
}

void check_known(const std::string& cpu, const std::string& features) {
  const std::unique_ptr<llvm::MCSubtargetInfo> known(
      nvptx().createMCSubtargetInfo(kTriple, "", ""));
  if (!known->isCPUStringValid(cpu)) {
    fail(ErrorKind::kUnsupported, "LLVM {} knows no target {}: its newest is {}",
         LLVM_VERSION_STRING, cpu, newest_cpu(*known));
  }
  const auto all = known->getAllProcessorFeatures();
  const bool is_known = std::any_of(all.begin(), all.end(), [&](const auto& feature) {
    return features.substr(1) == feature.Key;
  });
  if (!is_known) {
    fail(ErrorKind::kUnsupported, "LLVM {} knows no {}, which {} takes", LLVM_VERSION_STRING,
         features.substr(1), cpu);
  }
}

std::unique_ptr<llvm::TargetMachine> make_machine(const std::string& cpu,
                                                  const std::string& features) {
  check_known(cpu, features);
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict;
  // Below O1 the accumulators of warpgroup products would be copied around each of them.
  return std::unique_ptr<llvm::TargetMachine>(
      nvptx().createTargetMachine(kTriple, cpu, features, options, llvm::Reloc::Static,
                                  llvm::CodeModel::Small, llvm::CodeGenOptLevel::Less));
}

// What code generation wants of its input and does not do itself: registers instead of variables,
// and nothing twice. Unrolling, hoisting and scheduling are left to the assembler, which allocates
// the registers.
void simplify(llvm::Module& module, llvm::TargetMachine& machine) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager sccs;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(sccs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, sccs, modules);
  llvm::FunctionPassManager passes;
  passes.addPass(llvm::PromotePass());
  passes.addPass(llvm::EarlyCSEPass());
  passes.addPass(llvm::DCEPass());
  for (llvm::Function& function : module) {
    if (!function.isDeclaration()) passes.run(function, functions);
  }
}

// Errors that LLVM reports while it works, such as of inline assembly.
void collect_errors(llvm::LLVMContext& context, std::string& errors) {
  context.setDiagnosticHandlerCallBack(
      [](const llvm::DiagnosticInfo* info, void* collected) {
        if (info->getSeverity() != llvm::DS_Error) return;
        llvm::raw_string_ostream stream(*static_cast<std::string*>(collected));
        llvm::DiagnosticPrinterRawOStream printer(stream);
        info->print(printer);
        stream << '\n';
      },
      &errors);
}

}  // namespace

std::string emit_ptx(llvm::Module& module, const std::string& cpu, const std::string& features) {
  const std::unique_ptr<llvm::TargetMachine> machine = make_machine(cpu, features);
  std::string errors;
  collect_errors(module.getContext(), errors);
  module.setTargetTriple(kTriple);
  module.setDataLayout(machine->createDataLayout());
  simplify(module, *machine);
  llvm::SmallString<0> ptx;
  llvm::raw_svector_ostream stream(ptx);
  llvm::legacy::PassManager passes;
  if (machine->addPassesToEmitFile(passes, stream, nullptr, llvm::CodeGenFileType::AssemblyFile)) {
    fail(ErrorKind::kInternal, "LLVM {} writes no PTX", LLVM_VERSION_STRING);
  }
  passes.run(module);
  if (!errors.empty()) throw Error(ErrorKind::kToolchain, errors);
  return std::string(ptx);
}

}  // namespace sagejit::llvm_backend
