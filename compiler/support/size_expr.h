// SizeExpr: a small integer expression over the run-time facts of one call, as text and as a
// program.
//
// Plans describe grids, buffer sizes and kernel parameters by such expressions, so that an artifact
// can be launched from its stored text alone, by code that knows no generator:
//   "b * hkv * ceil_div(n, 64) * 64 * 128"
// Grammar: integers, symbols, + - * (left to right, * first), parentheses, ceil_div(a, b), div(a,
// b), min(a, b), max(a, b). All arithmetic is signed 64-bit; overflow throws Error{kArgument}.
// At most 16 values are needed at once, and 64 parentheses or functions stand inside each other. A
// SizeExpr is immutable; evaluate() allocates nothing and may be called from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sagejit {

// What an expression may name: the problem's sizes, the element strides and addresses of its
// tensors, the device's number of multiprocessors, and what is asked for. Strides are in elements;
// addresses are device addresses. Tensor order below is fixed: q, k, v, o, lse.
enum class Symbol : uint8_t {
  kB,
  kHq,
  kHkv,
  kM,
  kN,
  kQ,
  kQStrideB,
  kQStrideH,
  kQStrideM,
  kK,
  kKStrideB,
  kKStrideH,
  kKStrideN,
  kV,
  kVStrideB,
  kVStrideH,
  kVStrideN,
  kO,
  kOStrideB,
  kOStrideH,
  kOStrideM,
  kLse,
  kLseStrideB,
  kLseStrideH,
  kNumSms,        // streaming multiprocessors of the device that launches; 1 on the emulator
  kAttendsAlone,  // 1 if the call attends to what an earlier one has quantized, else 0
  kCount,
};
inline constexpr int kNumSymbols = static_cast<int>(Symbol::kCount);

// Names as they stand in expressions: "b", "hq", ..., "q", "q.stride_b", ..., "lse.stride_h",
// "num_sms", "attends_alone".
std::string_view name_of(Symbol symbol);

// The value of every symbol for one call, indexed by Symbol.
using SymbolValues = std::span<const int64_t, kNumSymbols>;

class SizeExpr {
 public:
  SizeExpr() : SizeExpr("0") {}
  // Parses; throws Error{kInternal} naming the offending text: expressions come from plans, not
  // from users.
  explicit SizeExpr(std::string_view text);

  int64_t evaluate(SymbolValues values) const;
  const std::string& text() const { return text_; }
  bool operator==(const SizeExpr& other) const { return text_ == other.text_; }

 private:
  friend class SizeExprParser;
  friend class SizeProgram;
  enum class Op : uint8_t { kPush, kSymbol, kAdd, kSub, kMul, kCeilDiv, kDiv, kMin, kMax };
  struct Step {
    Op op;
    int64_t value;  // kPush: the number; kSymbol: the Symbol's index
  };
  // One arithmetic operation; `text` is the expression, for messages.
  static int64_t apply(Op op, int64_t a, int64_t b, const std::string& text);

  std::string text_;
  std::vector<Step> steps_;  // postfix; depth checked at parse time
};

}  // namespace sagejit
