// One attention problem on a device, in several copies.
#pragma once

#include <string>
#include <vector>

#include "runtime/include/sagejit/sagejit.h"
#include "runtime/launch/args.h"
#include "tests/reference/inputs.h"
#include "tools/cli/device_buffer.h"

namespace sagejit::cli {

struct DataOptions {
  std::string distribution = "normal";
  uint64_t seed = 1;
};

// A block of random data that stands for a whole problem: at most kBlockTokens tokens of at most
// kBlockKeyHeads key heads, with the query heads that read them, of one batch. The problem repeats
// it along batches, heads and tokens; to draw every element of a long one takes longer than to
// time it. (`sink` then has a sink in every kBlockTokens keys.)
inline constexpr int64_t kBlockTokens = 1024, kBlockKeyHeads = 4;
reference::ProblemShape block_shape(const reference::ProblemShape& shape);

// The tensors of a problem without memory: all that sizes are computed from. Contiguous
// [b, h, t, d].
AttentionArgs describe_args(const TensorContract& contract, const reference::ProblemShape& shape);

// The same arguments as a program in C passes them.
class PublicArgs {
 public:
  explicit PublicArgs(const AttentionArgs& args);
  PublicArgs(const PublicArgs&) = delete;
  PublicArgs& operator=(const PublicArgs&) = delete;
  const sagejit_attention_args& get() const { return args_; }

 private:
  std::array<sagejit_tensor, kNumOperands> tensors_ = {};
  sagejit_attention_args args_ = {};
};

// Bytes of the tensors, without workspace.
uint64_t tensor_bytes(const AttentionArgs& args);

class BenchProblem {
 public:
  // The same data in every copy. Outputs and workspaces are not set. Throws Error{kMemory}.
  BenchProblem(Device& device, const AttentionArgs& description, uint64_t workspace_bytes,
               const DataOptions& data, int copies);

  const AttentionArgs& copy(int index) const { return copies_[static_cast<size_t>(index)]; }
  int num_copies() const { return static_cast<int>(copies_.size()); }

 private:
  std::vector<DeviceBuffer> buffers_;
  std::vector<AttentionArgs> copies_;
};

}  // namespace sagejit::cli
