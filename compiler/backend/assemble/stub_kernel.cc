#include "compiler/backend/assemble/stub_kernel.h"

#include <algorithm>
#include <map>
#include <vector>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

// Cuts PTX into words (names, numbers and directives alike), single characters and the space
// between; comments count as space and are dropped.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : rest_(text) {}

  // The space before the next word, without comments.
  std::string_view space() {
    const std::string_view before = rest_;
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
    const std::string_view space = before.substr(0, before.size() - rest_.size());
    if (rest_.starts_with("//")) {
      skip_to("\n", 0);
    } else if (rest_.starts_with("/*")) {
      skip_to("*/", 2);
    } else {
      return space;
    }
    this->space();
    return "\n";
  }
  // "" at the end.
  std::string_view word() {
    space();
    size_t length = 0;
    while (length < rest_.size() && is_word(rest_[length])) ++length;
    const std::string_view word = rest_.substr(0, std::max<size_t>(length, !rest_.empty()));
    rest_.remove_prefix(word.size());
    return word;
  }
  void expect(std::string_view wanted) {
    const std::string_view found = word();
    if (found == wanted) return;
    fail(ErrorKind::kUnsupported,
         "NVRTC cannot carry this PTX to its assembler: '{}' where '{}' is expected; use another "
         "assembler: --assembler ptxas",
         found, wanted);
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.' || c == '$' || c == '%';
  }
  void skip_to(std::string_view end, size_t behind) {
    const size_t at = rest_.find(end);
    rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at + behind);
  }

  std::string_view rest_;
};

struct Param {
  std::string_view type, name;  // PTX's
};

struct Entry {
  std::string_view name;
  std::vector<Param> params;
  std::string_view threads, min_blocks;   // numbers; the latter may be ""
  std::string_view smem, smem_alignment;  // "" without dynamic shared memory
};

// .extern .shared .align N .b8 NAME[];
void read_smem(Lexer& lexer, Entry& entry) {
  lexer.expect(".shared");
  lexer.expect(".align");
  entry.smem_alignment = lexer.word();
  lexer.expect(".b8");
  entry.smem = lexer.word();
  for (const char* rest : {"[", "]", ";"}) lexer.expect(rest);
}

// From behind .entry to before the body.
void read_signature(Lexer& lexer, Entry& entry) {
  entry.name = lexer.word();
  lexer.expect("(");
  std::string_view word = lexer.word();
  while (word == ".param") {
    const std::string_view type = lexer.word();
    entry.params.push_back({type, lexer.word()});
    word = lexer.word();
    if (word == ",") word = lexer.word();
  }
  if (word != ")") lexer.expect(")");
  lexer.expect(".maxntid");
  entry.threads = lexer.word();
  word = lexer.word();
  while (word == ",") {
    lexer.expect("1");
    word = lexer.word();
  }
  if (word == ".minnctapersm") {
    entry.min_blocks = lexer.word();
    word = lexer.word();
  }
  if (word != "{") {
    fail(ErrorKind::kUnsupported,
         "NVRTC cannot carry a kernel with '{}' to its assembler; use another: --assembler ptxas",
         word);
  }
}

Entry read_header(Lexer& lexer) {
  Entry entry;
  for (std::string_view word = lexer.word();; word = lexer.word()) {
    if (word == ".version" || word == ".target" || word == ".address_size") {
      lexer.word();
    } else if (word == ".extern" && entry.smem.empty()) {
      read_smem(lexer, entry);
    } else if (word == ".entry") {
      read_signature(lexer, entry);
      return entry;
    } else if (word != ".visible") {
      fail(ErrorKind::kUnsupported,
           "NVRTC cannot carry a module with '{}' to its assembler; use another: --assembler ptxas",
           word);
    }
  }
}

std::string_view cuda_type(const Param& param) {
  const std::string_view bits = param.type.substr(std::min<size_t>(2, param.type.size()));
  if (bits == "64") return "unsigned long long";
  if (bits == "32") return "unsigned";
  fail(ErrorKind::kUnsupported,
       "NVRTC cannot carry a kernel whose parameter '{}' is '{}' to its assembler; use another: "
       "--assembler ptxas",
       param.name, param.type);
}

// The body with its last brace, as the text of an assembly statement: parameters by the names that
// NVRTC gives them, and % doubled.
std::string statement(Lexer& lexer, const Entry& entry) {
  std::map<std::string_view, std::string> names;
  for (size_t i = 0; i < entry.params.size(); ++i) {
    names[entry.params[i].name] = fmt::format("{}_param_{}", entry.name, i);
  }
  std::string text;
  for (int depth = 1; depth > 0;) {
    text += lexer.space();
    const std::string_view word = lexer.word();
    if (word.empty()) fail(ErrorKind::kInternal, "kernel '{}' ends in its middle", entry.name);
    if (word == "{") ++depth;
    if (word == "}") --depth;
    if (const auto renamed = names.find(word); renamed != names.end()) {
      text += renamed->second;
      continue;
    }
    for (const char c : word) text += c == '%' ? std::string_view("%%") : std::string_view(&c, 1);
  }
  if (!lexer.word().empty()) {
    fail(ErrorKind::kUnsupported,
         "NVRTC cannot carry a module with more than kernel '{}' to its assembler; use another: "
         "--assembler ptxas",
         entry.name);
  }
  return text;
}

}  // namespace

std::string stub_kernel(std::string_view ptx) {
  Lexer lexer(ptx);
  const Entry entry = read_header(lexer);
  std::string params;
  for (size_t i = 0; i < entry.params.size(); ++i) {
    params += fmt::format("{}{} p{}", i ? ", " : "", cuda_type(entry.params[i]), i);
  }
  std::string text;
  if (!entry.smem.empty()) {
    text = fmt::format("extern __shared__ __align__({}) unsigned char {}[];\n",
                       entry.smem_alignment, entry.smem);
  }
  // The operand has the array declared; without any, %% would not mean %.
  return text + fmt::format(
                    "extern \"C\" __global__ void __launch_bounds__({}{}{}) {}({}) {{\n"
                    "asm volatile(R\"ptx({{{})ptx\" : : {} : \"memory\");\n}}\n",
                    entry.threads, entry.min_blocks.empty() ? "" : ", ", entry.min_blocks,
                    entry.name, params, statement(lexer, entry),
                    entry.smem.empty() ? "\"n\"(0)" : fmt::format("\"l\"({})", entry.smem));
}

}  // namespace sagejit
