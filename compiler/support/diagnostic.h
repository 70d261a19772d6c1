// Diagnostics of text that a user wrote: where, what, why, and the nearest thing that would work.
//
//   sage1.attn:7:14: error: head_dim 60 is not a multiple of 8
//      7 |   head_dim = 60
//        |              ^^
//     note: the nearest that work are 56 and 64
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sagejit {

// A named text. Tokens, syntax trees and spans point into it: it must outlive them and not move.
struct SourceFile {
  std::string name;
  std::string text;
};

// Bytes [begin, end) of a file.
struct Span {
  const SourceFile* file = nullptr;
  uint32_t begin = 0;
  uint32_t end = 0;
};

// From the start of `first` to the end of `last`, both of one file.
Span join(Span first, Span last);

enum class Severity { kError, kWarning };

struct Diagnostic {
  Severity severity = Severity::kError;
  Span span;
  std::string message;
  std::vector<std::string> notes;
};

// The form shown above, without a newline at its end. Columns count code points from 1; long lines
// are cut around the caret, and bytes that do not print are shown as `?`.
std::string render(const Diagnostic& diagnostic);

// Collects the diagnostics of one piece of work; keeps the first 50 of each severity. Not
// thread-safe.
class Diagnostics {
 public:
  // `note` may be empty. The same message at the same place is kept once.
  void error(Span span, std::string message, std::string note = "");
  void warning(Span span, std::string message, std::string note = "");
  void add(Diagnostic diagnostic);

  size_t num_errors() const { return num_errors_; }

  // Every warning, rendered, in the order of the text.
  std::vector<std::string> warnings() const;

  // Throws Error{kSpec} with every error kept, in the order of the text; does nothing where there
  // is none.
  void throw_if_errors() const;

 private:
  std::vector<Diagnostic> in_text_order(Severity severity) const;

  std::vector<Diagnostic> all_;
  size_t num_errors_ = 0;
  size_t num_warnings_ = 0;
};

}  // namespace sagejit
