// What the emulator throws: one type for wrong PTX, unsupported PTX and every hazard found while
// running.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>

namespace sagejit::emulator {

enum class ErrorKind {
  kParse,                // the text is not PTX: syntax, unknown name, operand of the wrong width
  kUnsupported,          // valid PTX outside the emulator's subset
  kOutOfBounds,          // access outside the launch's memory ranges, or a write to a read-only one
  kMisaligned,           // address not a multiple of the access size
  kUninitializedRead,    // register or shared byte that nobody wrote
  kRace,                 // conflicting shared-memory accesses not ordered by a barrier
  kMissingWait,          // bytes or registers of an asynchronous operation touched before a wait
  kMissingGridWait,      // a block of a dependent launch that ended without griddepcontrol.wait
  kMissingFence,         // generic writes read by the async proxy, or registers by wgmma, unfenced
  kBarrierMisuse,        // an mbarrier that is not one, or its counts, bytes or phases out of range
  kDeadlock,             // a barrier that can never complete
  kDivergentCollective,  // a warp collective with some of its lanes missing
  kBadLaunch,            // the launch does not fit the kernel
  kStepLimit,            // Options::max_steps spent
  kTrap,                 // the kernel executed `trap`
};

// "out of bounds", "race", ...; static storage.
const char* kind_name(ErrorKind kind) noexcept;

using Index3 = std::array<uint32_t, 3>;

// The access that the failing one collides with.
struct LastWriter {
  uint32_t line = 0;          // PTX line; 0 when unknown
  Index3 thread = {0, 0, 0};  // threadIdx of the writer (or reader, for a write after a read)
  bool is_write = true;       // false: the other access was a read
};

struct ErrorInfo {
  ErrorKind kind = ErrorKind::kParse;
  std::string message;  // what happened, without place
  uint32_t line = 0;    // 1-based PTX line; 0 when no line applies
  std::string text;     // that line, trimmed
  std::string kernel;   // empty while parsing
  std::optional<Index3> block;
  std::optional<Index3> thread;
  std::optional<LastWriter> last_writer;
};

class Error : public std::exception {
 public:
  explicit Error(ErrorInfo info);

  const ErrorInfo& info() const noexcept { return info_; }
  ErrorKind kind() const noexcept { return info_.kind; }
  uint32_t line() const noexcept { return info_.line; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  ErrorInfo info_;
  std::string what_;
};

}  // namespace sagejit::emulator
