#include "compiler/backend/llvm/lower.h"

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Support/raw_ostream.h>

#include <span>
#include <string>
#include <vector>

#include "compiler/backend/common/instruction.h"
#include "compiler/support/error.h"

namespace sagejit::llvm_backend {
namespace {

using ir::Inst;
using ir::Op;
using ir::Type;
using ir::Value;
using Predicate = llvm::CmpInst::Predicate;

// The inline-assembly constraint of a register of that type.
char constraint(Type type) {
  return type == Type::kB16 ? 'h' : letter_of(type);
}

// Of mma.def: all threads of a warp make it together.
bool is_warp_product(Op op) {
  switch (op) {
#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) case Op::id:
#include "compiler/ir/mma.def"
#undef MMA
    return true;
    default:
      return false;
  }
}

// An assembly statement: `text` numbers the outputs, then the tied inputs (one of each output, or
// none), then the inputs.
struct Assembly {
  std::string text = {};
  std::vector<Type> outputs = {};
  std::vector<llvm::Value*> tied = {};
  std::vector<std::pair<Type, llvm::Value*>> inputs = {};
  bool has_effect = true;     // keeps its place, and is made exactly as often as it stands there
  bool is_collective = true;  // may not be made dependent on more control flow
};

class Lowering {
 public:
  Lowering(const ir::Function& function, llvm::LLVMContext& context)
      : function_(function),
        module_(std::make_unique<llvm::Module>(function.name, context)),
        build_(context),
        values_(function.num_registers) {}

  std::unique_ptr<llvm::Module> run() {
    declare();
    block(function_.body);
    build_.CreateRetVoid();
    llvm::IRBuilder<>(variables_).CreateBr(start_);
    std::string error;
    llvm::raw_string_ostream stream(error);
    if (llvm::verifyFunction(*kernel_, &stream)) {
      fail(ErrorKind::kInternal, "kernel '{}' became LLVM IR that does not verify: {}",
           function_.name, error);
    }
    return std::move(module_);
  }

 private:
  // --- the kernel around its body
  void declare() {
    std::vector<llvm::Type*> params;
    for (const ir::Param& param : function_.params) params.push_back(type(param.type));
    kernel_ =
        llvm::Function::Create(llvm::FunctionType::get(build_.getVoidTy(), params, false),
                               llvm::Function::ExternalLinkage, function_.name, module_.get());
    for (size_t i = 0; i < params.size(); ++i) {
      kernel_->getArg(i)->setName("p_" + function_.params[i].name);
    }
    kernel_->addFnAttr(llvm::Attribute::NoUnwind);
    kernel_->addFnAttr(llvm::Attribute::Convergent);
    annotate("kernel", 1);
    annotate("maxntidx", function_.block_threads);
    annotate("minctasm", function_.min_blocks_per_sm);
    if (!function_.smem.empty()) {
      smem_ = new llvm::GlobalVariable(*module_, llvm::ArrayType::get(build_.getInt8Ty(), 0), false,
                                       llvm::GlobalValue::ExternalLinkage, nullptr, "smem", nullptr,
                                       llvm::GlobalValue::NotThreadLocal, kSharedAddressSpace);
      smem_->setAlignment(llvm::Align(128));
    }
    variables_ = new_block("variables");
    start_ = new_block("start");
    build_.SetInsertPoint(start_);
  }

  void annotate(const char* key, int value) {
    llvm::LLVMContext& context = module_->getContext();
    module_->getOrInsertNamedMetadata("nvvm.annotations")
        ->addOperand(llvm::MDNode::get(
            context, {llvm::ValueAsMetadata::get(kernel_), llvm::MDString::get(context, key),
                      llvm::ConstantAsMetadata::get(build_.getInt32(value))}));
  }

  llvm::BasicBlock* new_block(const char* name) {
    return llvm::BasicBlock::Create(module_->getContext(), name, kernel_);
  }

  // --- types and operands
  llvm::Type* type(Type type) {
    switch (type) {
      case Type::kPred:
        return build_.getInt1Ty();
      case Type::kB16:
        return build_.getInt16Ty();
      case Type::kI32:
        return build_.getInt32Ty();
      case Type::kI64:
        return build_.getInt64Ty();
      case Type::kF32:
        return build_.getFloatTy();
    }
    return nullptr;
  }

  // What a constant, a register or a variable holds here.
  llvm::Value* operand(Value value) {
    switch (value.kind) {
      case Value::Kind::kConst:
        if (value.type == Type::kF32) {
          return llvm::ConstantFP::get(
              build_.getFloatTy(),
              llvm::APFloat(llvm::APFloat::IEEEsingle(), llvm::APInt(32, value.bits)));
        }
        return llvm::ConstantInt::get(type(value.type), value.bits);
      case Value::Kind::kRegister:
        return values_[value.bits];
      case Value::Kind::kVariable:
        return build_.CreateLoad(type(value.type), values_[value.bits]);
      case Value::Kind::kNone:
        break;
    }
    fail(ErrorKind::kInternal, "LLVM back end: an operand is undefined");
  }

  void define(Value result, llvm::Value* value) { values_[result.bits] = value; }
  void set(Value variable, llvm::Value* value) {
    build_.CreateStore(value, values_[variable.bits]);
  }

  void block(const ir::Block& block) {
    for (const Inst& inst : block) {
      if (inst.op >= Op::kParam) {
        structural(inst);
      } else if (llvm::Value* value = native(inst)) {
        define(inst.results[0], value);
      } else {
        instruction(inst);
      }
    }
  }

  // --- arithmetic that LLVM has itself; null for all else. What LLVM leaves undefined where the IR
  // does not, as shifts by the width and more, is left to the instruction, too.
  llvm::Value* native(const Inst& inst) {
    const auto argument = [&](size_t i) { return operand(inst.operands[i]); };
    if (llvm::Value* value = integer(inst)) return value;
    switch (inst.op) {
      case Op::kAddF32:
        return build_.CreateFAdd(argument(0), argument(1));
      case Op::kSubF32:
        return build_.CreateFSub(argument(0), argument(1));
      case Op::kMulF32:
        return build_.CreateFMul(argument(0), argument(1));
      case Op::kDivF32:
        return build_.CreateFDiv(argument(0), argument(1));
      case Op::kFmaF32:
        return build_.CreateIntrinsic(llvm::Intrinsic::fma, {build_.getFloatTy()},
                                      {argument(0), argument(1), argument(2)});
      case Op::kMaxF32:
        return build_.CreateMaxNum(argument(0), argument(1));
      case Op::kAbsF32:
        return build_.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, argument(0));
      case Op::kNegF32:
        return build_.CreateFNeg(argument(0));
      case Op::kF32FromS32:
        return build_.CreateSIToFP(argument(0), build_.getFloatTy());
      case Op::kBitsF32:
        return build_.CreateBitCast(argument(0), build_.getInt32Ty());
      case Op::kF32Bits:
        return build_.CreateBitCast(argument(0), build_.getFloatTy());
      case Op::kSelectI32:
      case Op::kSelectF32:
        return build_.CreateSelect(argument(0), argument(1), argument(2));
      case Op::kEqF32:
        return build_.CreateFCmpOEQ(argument(0), argument(1));
      case Op::kLtF32:
        return build_.CreateFCmpOLT(argument(0), argument(1));
      case Op::kAnySync:
        return build_.CreateIntrinsic(llvm::Intrinsic::nvvm_vote_any_sync, {},
                                      {build_.getInt32(~0u), argument(0)});
      default:
        return coordinate(inst.op);
    }
  }

  llvm::Value* integer(const Inst& inst) {
    const auto argument = [&](size_t i) { return operand(inst.operands[i]); };
    const auto compare = [&](Predicate predicate) {
      return build_.CreateICmp(predicate, argument(0), argument(1));
    };
    switch (inst.op) {
      case Op::kAddI32:
      case Op::kAddI64:
        return build_.CreateAdd(argument(0), argument(1));
      case Op::kSubI32:
        return build_.CreateSub(argument(0), argument(1));
      case Op::kMulI32:
      case Op::kMulI64:
        return build_.CreateMul(argument(0), argument(1));
      case Op::kAndI32:
      case Op::kAndPred:
        return build_.CreateAnd(argument(0), argument(1));
      case Op::kOrI32:
      case Op::kOrPred:
        return build_.CreateOr(argument(0), argument(1));
      case Op::kXorI32:
        return build_.CreateXor(argument(0), argument(1));
      case Op::kMinS32:
        return build_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, argument(0), argument(1));
      case Op::kMaxS32:
        return build_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, argument(0), argument(1));
      case Op::kZextI64:
        return build_.CreateZExt(argument(0), build_.getInt64Ty());
      case Op::kSextI64:
        return build_.CreateSExt(argument(0), build_.getInt64Ty());
      case Op::kEqI32:
        return compare(Predicate::ICMP_EQ);
      case Op::kNeI32:
        return compare(Predicate::ICMP_NE);
      case Op::kLtS32:
        return compare(Predicate::ICMP_SLT);
      case Op::kLeS32:
        return compare(Predicate::ICMP_SLE);
      case Op::kGtS32:
        return compare(Predicate::ICMP_SGT);
      case Op::kGeS32:
        return compare(Predicate::ICMP_SGE);
      default:
        return by_constant(inst);
    }
  }

  // Shifts by less than the width, and quotients of what is not zero.
  llvm::Value* by_constant(const Inst& inst) {
    if (inst.operands.size() != 2 || !inst.operands[1].is_const()) return nullptr;
    const uint64_t by = inst.operands[1].bits;
    llvm::Value* a = operand(inst.operands[0]);
    llvm::Value* amount = llvm::ConstantInt::get(a->getType(), by);
    const bool is_shift = a->getType()->isIntegerTy() && by < a->getType()->getIntegerBitWidth();
    switch (inst.op) {
      case Op::kShlI32:
      case Op::kShlI64:
        return is_shift ? build_.CreateShl(a, amount) : nullptr;
      case Op::kShrU32:
        return is_shift ? build_.CreateLShr(a, amount) : nullptr;
      case Op::kDivU32:
        return by ? build_.CreateUDiv(a, amount) : nullptr;
      case Op::kRemU32:
        return by ? build_.CreateURem(a, amount) : nullptr;
      default:
        return nullptr;
    }
  }

  llvm::Value* coordinate(Op op) {
    const auto read = [&](llvm::Intrinsic::ID id) { return build_.CreateIntrinsic(id, {}, {}); };
    switch (op) {
      case Op::kTid:
        return read(llvm::Intrinsic::nvvm_read_ptx_sreg_tid_x);
      case Op::kBlockX:
        return read(llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_x);
      case Op::kBlockY:
        return read(llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_y);
      case Op::kBlockZ:
        return read(llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_z);
      case Op::kGridX:
        return read(llvm::Intrinsic::nvvm_read_ptx_sreg_nctaid_x);
      default:
        return nullptr;
    }
  }

  // --- instructions
  std::vector<llvm::Value*> emit(const Assembly& assembly) {
    std::string constraints;
    std::vector<llvm::Type*> outputs, inputs;
    std::vector<llvm::Value*> arguments;
    const auto constrain = [&](std::string_view text) {
      if (!constraints.empty()) constraints += ',';
      constraints += text;
    };
    for (const Type output : assembly.outputs) {
      constrain(std::string("=") + constraint(output));
      outputs.push_back(type(output));
    }
    for (size_t i = 0; i < assembly.tied.size(); ++i) {
      constrain(std::to_string(i));
      arguments.push_back(assembly.tied[i]);
    }
    for (const auto& [type, value] : assembly.inputs) {
      constrain(std::string(1, constraint(type)));
      arguments.push_back(value);
    }
    for (const llvm::Value* argument : arguments) inputs.push_back(argument->getType());
    llvm::Type* result = outputs.empty() ? build_.getVoidTy()
                         : outputs.size() == 1
                             ? outputs[0]
                             : llvm::StructType::get(module_->getContext(), outputs);
    auto* type = llvm::FunctionType::get(result, inputs, false);
    llvm::CallInst* call = build_.CreateCall(
        llvm::InlineAsm::get(type, assembly.text, constraints, assembly.has_effect), arguments);
    call->addFnAttr(llvm::Attribute::NoUnwind);
    if (assembly.is_collective) call->addFnAttr(llvm::Attribute::Convergent);
    if (!assembly.has_effect) {
      call->addFnAttr(llvm::Attribute::WillReturn);
      call->setMemoryEffects(llvm::MemoryEffects::none());
    }
    if (outputs.size() == 1) return {call};
    std::vector<llvm::Value*> values;
    for (unsigned i = 0; i < outputs.size(); ++i) {
      values.push_back(build_.CreateExtractValue(call, i));
    }
    return values;
  }

  // Numbers are LLVM's, immediates part of the text, and LLVM's own sign is doubled.
  void instruction(const Inst& inst) {
    const ir::OpInfo& row = ir::info(inst.op);
    Assembly assembly;
    std::vector<std::string> names;
    for (const Value& result : inst.results) {
      names.push_back(fmt::format("${}", names.size()));
      assembly.outputs.push_back(result.type);
    }
    for (size_t i = 0; i < inst.operands.size(); ++i) {
      const Value value = inst.operands[i];
      if (row.operands[i] == 'i') {
        names.push_back(fmt::format("{}", static_cast<int32_t>(value.bits)));
        continue;
      }
      names.push_back(fmt::format("${}", inst.results.size() + assembly.inputs.size()));
      assembly.inputs.emplace_back(value.type, operand(value));
    }
    assembly.text = substitute(row.ptx, [&](size_t number) { return names[number]; });
    assembly.has_effect = row.effect != ir::Effect::kPure;
    assembly.is_collective = assembly.has_effect || is_warp_product(inst.op);
    const std::vector<llvm::Value*> values = emit(assembly);
    for (size_t i = 0; i < values.size(); ++i) define(inst.results[i], values[i]);
  }

  // An assembly statement that reads and writes the variables in place.
  void update(std::span<const Value> variables, std::string text,
              std::vector<std::pair<Type, llvm::Value*>> inputs) {
    Assembly assembly{.text = std::move(text), .inputs = std::move(inputs)};
    for (const Value& variable : variables) {
      assembly.outputs.push_back(variable.type);
      assembly.tied.push_back(operand(variable));
    }
    const std::vector<llvm::Value*> values = emit(assembly);
    for (size_t i = 0; i < values.size(); ++i) set(variables[i], values[i]);
  }

  void wgmma(const Inst& inst) {
    const auto accumulators = static_cast<size_t>(ir::num_accumulators(inst));
    std::vector<std::pair<Type, llvm::Value*>> inputs;
    for (size_t i = accumulators; i + 2 < inst.operands.size(); ++i) {
      inputs.emplace_back(inst.operands[i].type, operand(inst.operands[i]));
    }
    update(std::span(inst.operands).first(accumulators),
           wgmma_instruction(inst,
                             [&](size_t number) {
                               return fmt::format(
                                   "${}", number < accumulators ? number : number + accumulators);
                             }),
           std::move(inputs));
  }

  // --- structure
  void structural(const Inst& inst) {
    switch (inst.op) {
      case Op::kParam:
        return define(inst.results[0], kernel_->getArg(inst.operands[0].bits));
      case Op::kSmem:
        return define(
            inst.results[0],
            build_.CreateAdd(build_.CreatePtrToInt(smem_, build_.getInt32Ty()),
                             build_.getInt32(function_.smem[inst.operands[0].bits].offset_bytes)));
      case Op::kVar:
        define(inst.results[0],
               llvm::IRBuilder<>(variables_).CreateAlloca(type(inst.results[0].type)));
        return set(inst.results[0], operand(inst.operands[0]));
      case Op::kGet:
        return define(inst.results[0], operand(inst.operands[0]));
      case Op::kSet:
        return set(inst.operands[0], operand(inst.operands[1]));
      case Op::kComment:
        return;
      case Op::kFor:
        return loop(inst);
      case Op::kWhile:
        return loop_while(inst);
      case Op::kIf:
      case Op::kIfUniform:
        return branch(inst);
      case Op::kTie:
        return update(inst.operands, "", {});
      case Op::kWgmmaWait:
        return update(std::span(inst.operands).subspan(1),
                      fmt::format("wgmma.wait_group.sync.aligned {};", inst.operands[0].bits), {});
      default:
        if (!ir::find_wgmma(inst.op)) {
          fail(ErrorKind::kInternal, "LLVM back end: unknown structural operation");
        }
        return wgmma(inst);
    }
  }

  // Loops test at their end: one branch an iteration.
  void loop(const Inst& inst) {
    llvm::Value* begin = operand(inst.operands[0]);
    llvm::Value* end = operand(inst.operands[1]);
    llvm::BasicBlock* before = build_.GetInsertBlock();
    llvm::BasicBlock *body = new_block("loop"), *after = new_block("end");
    build_.CreateCondBr(build_.CreateICmpSLT(begin, end), body, after);
    build_.SetInsertPoint(body);
    llvm::PHINode* index = build_.CreatePHI(build_.getInt32Ty(), 2);
    index->addIncoming(begin, before);
    define(inst.results[0], index);
    block(inst.body);
    llvm::Value* next = build_.CreateAdd(index, operand(inst.operands[2]));
    index->addIncoming(next, build_.GetInsertBlock());
    repeat(build_.CreateICmpSLT(next, end), body, after);
  }

  void loop_while(const Inst& inst) {
    const auto condition = [&] { return build_.CreateIsNotNull(operand(inst.operands[0])); };
    llvm::BasicBlock *body = new_block("loop"), *after = new_block("end");
    build_.CreateCondBr(condition(), body, after);
    build_.SetInsertPoint(body);
    block(inst.body);
    repeat(condition(), body, after);
  }

  // The back edge of a loop, which is never unrolled.
  void repeat(llvm::Value* condition, llvm::BasicBlock* body, llvm::BasicBlock* after) {
    llvm::LLVMContext& context = module_->getContext();
    llvm::MDNode* loop = llvm::MDNode::getDistinct(
        context,
        {nullptr,
         llvm::MDNode::get(context, {llvm::MDString::get(context, "llvm.loop.unroll.disable")})});
    loop->replaceOperandWith(0, loop);
    build_.CreateCondBr(condition, body, after)->setMetadata(llvm::LLVMContext::MD_loop, loop);
    after->moveAfter(build_.GetInsertBlock());
    build_.SetInsertPoint(after);
  }

  void branch(const Inst& inst) {
    llvm::Value* predicate = operand(inst.operands[0]);
    llvm::BasicBlock* otherwise = inst.orelse.empty() ? nullptr : new_block("else");
    llvm::BasicBlock *then = new_block("then"), *after = new_block("end");
    build_.CreateCondBr(predicate, then, otherwise ? otherwise : after);
    if (otherwise) {
      build_.SetInsertPoint(otherwise);
      block(inst.orelse);
      build_.CreateBr(after);
    }
    then->moveAfter(build_.GetInsertBlock());
    build_.SetInsertPoint(then);
    block(inst.body);
    build_.CreateBr(after);
    after->moveAfter(build_.GetInsertBlock());
    build_.SetInsertPoint(after);
  }

  static constexpr unsigned kSharedAddressSpace = 3;

  const ir::Function& function_;
  std::unique_ptr<llvm::Module> module_;
  llvm::IRBuilder<> build_;
  std::vector<llvm::Value*> values_;  // by register; by variable: its address
  llvm::Function* kernel_ = nullptr;
  llvm::GlobalVariable* smem_ = nullptr;
  llvm::BasicBlock *variables_ = nullptr, *start_ = nullptr;
};

}  // namespace

std::unique_ptr<llvm::Module> lower(const ir::Function& kernel, llvm::LLVMContext& context) {
  return Lowering(kernel, context).run();
}

}  // namespace sagejit::llvm_backend
