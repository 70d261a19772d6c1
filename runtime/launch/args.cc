#include "runtime/launch/args.h"

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr int64_t kRowAlignmentBytes = 16;  // kernels read and write rows by 16-byte vectors
constexpr int64_t kLseAlignmentBytes = 4;

// What one operand must look like.
struct OperandRule {
  Operand operand;
  const char* axes;  // for messages: "[b, hq, m, d]"
  int rank;
  DType dtype;
  bool output;
  int64_t alignment_bytes;             // of the address and of every row
  std::array<int64_t, kMaxRank> dims;  // expected extents; kFree: the operand defines it
  std::array<const char*, kMaxRank> dim_names;
};

constexpr int64_t kFree = -1;

bool is_empty(const Tensor& tensor) {
  for (int i = 0; i < tensor.rank; ++i) {
    if (tensor.shape[i] == 0) return true;
  }
  return false;
}

void check_shape(const OperandRule& rule, const Tensor& tensor) {
  const char* name = kOperandNames[static_cast<int>(rule.operand)];
  if (tensor.rank != rule.rank) {
    fail(ErrorKind::kArgument, "{} has {} axes: pass {} as {} axes", name, tensor.rank, rule.axes,
         rule.rank);
  }
  if (tensor.dtype != rule.dtype) {
    fail(ErrorKind::kArgument,
         "{} is {}, but the kernel was made for {}: convert it, or change the variant's io types",
         name, name_of(tensor.dtype), name_of(rule.dtype));
  }
  for (int i = 0; i < rule.rank; ++i) {
    if (tensor.shape[i] < 0) {
      fail(ErrorKind::kArgument, "{}.shape[{}] is {}: sizes are not negative", name, i,
           tensor.shape[i]);
    }
    if (rule.dims[i] != kFree && tensor.shape[i] != rule.dims[i]) {
      fail(ErrorKind::kArgument, "{}.shape[{}] is {}, but {} is {}: {} is {}", name, i,
           tensor.shape[i], rule.dim_names[i], rule.dims[i], name, rule.axes);
    }
  }
}

void check_strides(const OperandRule& rule, const Tensor& tensor) {
  const char* name = kOperandNames[static_cast<int>(rule.operand)];
  const int last = rule.rank - 1;
  const int64_t element_bytes = bits_of(rule.dtype) / 8;
  if (tensor.shape[last] > 1 && tensor.strides[last] != 1) {
    fail(ErrorKind::kArgument,
         "{}.strides[{}] is {}: the last axis must have stride 1; make {} contiguous there", name,
         last, tensor.strides[last], name);
  }
  for (int i = 0; i < last; ++i) {
    const int64_t stride = tensor.strides[i];
    if (tensor.shape[i] <= 1) continue;  // never multiplied by anything but 0
    if (stride < 0) {
      fail(ErrorKind::kArgument, "{}.strides[{}] is {}: negative strides are not supported", name,
           i, stride);
    }
    if (stride == 0 && rule.output) {
      fail(ErrorKind::kArgument, "{}.strides[{}] is 0: elements of an output cannot share memory",
           name, i);
    }
    // lse is written element by element; its rows need no alignment of their own.
    const int64_t unit = rule.alignment_bytes / element_bytes;
    if (unit > 1 && stride % unit != 0) {
      fail(ErrorKind::kArgument,
           "{}.strides[{}] is {}: it must be a multiple of {} elements, so that rows start on "
           "{}-byte boundaries",
           name, i, stride, unit, rule.alignment_bytes);
    }
  }
}

// Bytes from the address to the end of the last element.
uint64_t extent_bytes(const OperandRule& rule, const Tensor& tensor) {
  int64_t last_element = 0;
  bool overflow = false;
  for (int i = 0; i < tensor.rank; ++i) {
    if (tensor.shape[i] <= 1) continue;
    int64_t reach = 0;
    overflow |= __builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach);
    overflow |= __builtin_add_overflow(last_element, reach, &last_element);
  }
  int64_t bytes = 0;
  overflow |= __builtin_add_overflow(last_element, 1, &last_element);
  overflow |= __builtin_mul_overflow(last_element, bits_of(rule.dtype) / 8, &bytes);
  uint64_t end = 0;
  overflow |= __builtin_add_overflow(tensor.address, static_cast<uint64_t>(bytes), &end);
  if (overflow || end > static_cast<uint64_t>(INT64_MAX)) {
    fail(ErrorKind::kArgument,
         "{} reaches beyond the 64-bit address space: check its shape and strides",
         kOperandNames[static_cast<int>(rule.operand)]);
  }
  return static_cast<uint64_t>(bytes);
}

void check_address(const OperandRule& rule, const Tensor& tensor) {
  const char* name = kOperandNames[static_cast<int>(rule.operand)];
  if (tensor.address == 0) fail(ErrorKind::kArgument, "{}.data is null", name);
  if (tensor.address % static_cast<uint64_t>(rule.alignment_bytes) != 0) {
    fail(ErrorKind::kArgument, "{}.data is {:#x}: it must be aligned to {} bytes", name,
         tensor.address, rule.alignment_bytes);
  }
}

// Fills in symbols of one operand: its address, then its strides outside in. Axes of one element
// get stride 0, whatever the caller left there.
void set_symbols(const Tensor& tensor, Symbol address, int num_strides, BoundArgs& bound) {
  const int first = static_cast<int>(address);
  bound.symbols[first] = static_cast<int64_t>(tensor.address);
  for (int i = 0; i < num_strides; ++i) {
    bound.symbols[first + 1 + i] = tensor.shape[i] > 1 ? tensor.strides[i] : 0;
  }
}

class Binder {
 public:
  Binder(const TensorContract& contract, const AttentionArgs& args, OperandSet in_use)
      : contract_(contract), args_(args), in_use_(in_use) {}

  BoundArgs bind() {
    const int64_t d = contract_.head_dim, dv = contract_.value_head_dim;
    constexpr const char* kB = "the batch size of q";
    constexpr const char* kHq = "the number of heads of q";
    constexpr const char* kD = "head_dim of the variant";
    constexpr const char* kDv = "value_head_dim of the variant";
    const Tensor& q = operand({Operand::kQ,
                               "[b, hq, m, d]",
                               4,
                               contract_.input,
                               false,
                               kRowAlignmentBytes,
                               {kFree, kFree, kFree, d},
                               {"", "", "", kD}},
                              Symbol::kQ);
    const int64_t b = q.shape[0], hq = q.shape[1], m = q.shape[2];
    const Tensor& k = operand({Operand::kK,
                               "[b, hkv, n, d]",
                               4,
                               contract_.input,
                               false,
                               kRowAlignmentBytes,
                               {b, kFree, kFree, d},
                               {kB, "", "", kD}},
                              Symbol::kK);
    const int64_t hkv = k.shape[1], n = k.shape[2];
    operand({Operand::kV,
             "[b, hkv, n, dv]",
             4,
             contract_.input,
             false,
             kRowAlignmentBytes,
             {b, hkv, n, dv},
             {kB, "the number of heads of k", "the number of keys of k", kDv}},
            Symbol::kV);
    operand({Operand::kO,
             "[b, hq, m, dv]",
             4,
             contract_.output,
             true,
             kRowAlignmentBytes,
             {b, hq, m, dv},
             {kB, kHq, "the number of rows of q", kDv}},
            Symbol::kO);
    lse({b, hq, m, kFree}, {kB, kHq, "the number of rows of q", ""});
    check_heads(hq, hkv);
    const std::array<int64_t, 5> sizes = {b, hq, hkv, m, n};
    for (int i = 0; i < 5; ++i) bound_.symbols[static_cast<int>(Symbol::kB) + i] = sizes[i];
    bound_.empty = b == 0 || m == 0;
    return bound_;
  }

 private:
  void lse(const std::array<int64_t, kMaxRank>& shape,
           const std::array<const char*, kMaxRank>& axes) {
    if (contract_.lse) {
      operand({Operand::kLse, "[b, hq, m]", 3, DType::kF32, true, kLseAlignmentBytes, shape, axes},
              Symbol::kLse);
    } else if (args_.tensors[static_cast<int>(Operand::kLse)].given) {
      fail(ErrorKind::kArgument,
           "lse is given, but the variant writes none: pass null, or use a variant that outputs "
           "lse");
    }
  }

  // Checks one operand and records its symbols and memory.
  const Tensor& operand(const OperandRule& rule, Symbol symbol) {
    const Tensor& tensor = args_.tensors[static_cast<int>(rule.operand)];
    const char* name = kOperandNames[static_cast<int>(rule.operand)];
    if (!tensor.given && rule.output && !(in_use_ & bit(rule.operand))) return tensor;
    if (!tensor.given) {
      fail(ErrorKind::kArgument, "{} is null: pass a tensor {}", name, rule.axes);
    }
    check_shape(rule, tensor);
    uint64_t bytes = 0;
    if (!is_empty(tensor)) {
      check_strides(rule, tensor);
      bytes = extent_bytes(rule, tensor);
    }
    if (bytes && (in_use_ & bit(rule.operand))) {
      check_address(rule, tensor);
      bound_.ranges[bound_.num_ranges++] = {tensor.address, bytes, rule.output, name};
    }
    set_symbols(tensor, symbol, rule.rank - 1, bound_);
    return tensor;
  }

  static void check_heads(int64_t hq, int64_t hkv) {
    if (hq < 1 || hkv < 1) {
      fail(ErrorKind::kArgument, "q has {} heads and k has {}: at least one of each is needed", hq,
           hkv);
    }
    if (hq % hkv != 0) {
      fail(ErrorKind::kArgument,
           "q has {} heads and k has {}: the first must be a multiple of the second", hq, hkv);
    }
  }

  const TensorContract& contract_;
  const AttentionArgs& args_;
  OperandSet in_use_;
  BoundArgs bound_;
};

}  // namespace

BoundArgs bind_args(const TensorContract& contract, const AttentionArgs& args, OperandSet in_use) {
  return Binder(contract, args, in_use).bind();
}

}  // namespace sagejit
