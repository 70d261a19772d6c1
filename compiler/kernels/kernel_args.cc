#include "compiler/kernels/kernel_args.h"

#include "compiler/support/error.h"

namespace sagejit {

using ir::Value;

KernelArgs::KernelArgs(ir::Builder& b, const KernelLaunch& launch, Start start) : launch_(launch) {
  for (const KernelParam& param : launch.params) {
    values_.push_back(
        b.param(param.name, param.type == ParamType::kI32 ? ir::Type::kI32 : ir::Type::kI64));
  }
  if (!launch.waits_for_previous || start != Start::kWaits) return;
  // All of this launch's blocks run or are done when the next one's may start: nobody is kept out.
  b.emit(ir::Op::kGridWait, {});
  b.emit(ir::Op::kGridLaunchNext, {});
}

const Value* KernelArgs::find(std::string_view name) const {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (launch_.params[i].name == name) return &values_[i];
  }
  return nullptr;
}

Value KernelArgs::operator[](std::string_view name) const {
  if (const Value* value = find(name)) return *value;
  fail(ErrorKind::kInternal, "kernel '{}' has no parameter '{}'", launch_.kernel, name);
}

Value row_address(ir::Builder& b, const KernelArgs& args, const std::string& name,
                  std::string_view token_axis, const RowPlace& place) {
  const Value in_batch = b.mul64(b.zext(place.batch), args[name + "_stride_b"]);
  const Value in_head = b.mul64(b.zext(place.head), args[name + "_stride_h"]);
  const Value in_tokens =
      b.mul64(b.sext(place.token), args[fmt::format("{}_stride_{}", name, token_axis)]);
  return b.add64(b.add64(b.add64(args[name], in_batch), in_head), in_tokens);
}

}  // namespace sagejit
