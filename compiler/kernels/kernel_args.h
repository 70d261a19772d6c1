// The parameters of one launch, declared on a builder in the plan's order and found by the plan's
// names.
#pragma once

#include <string_view>
#include <vector>

#include "compiler/artifact.h"
#include "compiler/ir/builder.h"

namespace sagejit {

class KernelArgs {
 public:
  // Also waits for the launch before this one, where the plan says that the kernel must; unless the
  // kernel does that itself, piece by piece. Before it ends it must wait all the same: a launch
  // that ends before the one that it overlaps would let others begin too early.
  enum class Start { kWaits, kWaitsByPiece };
  KernelArgs(ir::Builder& b, const KernelLaunch& launch, Start start = Start::kWaits);
  // Throws Error{kInternal} if the launch has no such parameter.
  ir::Value operator[](std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }

 private:
  const ir::Value* find(std::string_view name) const;
  const KernelLaunch& launch_;
  std::vector<ir::Value> values_;
};

// A row of a tensor [b, heads, tokens, d]; i32.
struct RowPlace {
  ir::Value batch, head, token;
};

// Address of a row of a tensor that the plan passes with byte strides NAME_stride_b, _h,
// _AXIS.
ir::Value row_address(ir::Builder& b, const KernelArgs& args, const std::string& name,
                      std::string_view token_axis, const RowPlace& place);

}  // namespace sagejit
