// Reads the text form of the kernel IR; print.cc has the grammar. Types of operands are not written
// in it: they follow from the definitions, which may stand later in a text that the verifier is to
// reject.
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>

#include "compiler/ir/ir.h"
#include "compiler/support/error.h"

namespace sagejit::ir {
namespace {

constexpr int kMaxNesting = 64;
constexpr int64_t kMaxRegister = 1 << 24;

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

// One line, read from left to right; blanks between tokens do not matter.
class Line {
 public:
  Line(std::string_view text, int number) : rest_(text), number_(number) { skip_blanks(); }

  [[noreturn]] void error(std::string_view reason) const {
    fail(ErrorKind::kInternal, "kernel IR text, line {}: {}", number_, reason);
  }

  int number() const { return number_; }
  bool at_end() const { return rest_.empty(); }
  char peek() const { return rest_.empty() ? '\0' : rest_[0]; }
  // All that is left, as it stands.
  std::string_view rest() const { return rest_; }

  bool accept(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    const bool cuts_word = is_word_char(token.back()) && rest_.size() > token.size() &&
                           is_word_char(rest_[token.size()]);
    if (cuts_word) return false;
    rest_.remove_prefix(token.size());
    skip_blanks();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) error(fmt::format("expected '{}' before '{}'", token, rest_));
  }
  void expect_end() const {
    if (!at_end()) error(fmt::format("unexpected '{}'", rest_));
  }

  std::string_view word(std::string_view what) {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_word_char);
    const std::string_view result = rest_.substr(0, static_cast<size_t>(end - rest_.begin()));
    if (result.empty()) error(fmt::format("expected {} before '{}'", what, rest_));
    rest_.remove_prefix(result.size());
    skip_blanks();
    return result;
  }

  // A number in `base`, within [low, high].
  int64_t number(std::string_view what, int64_t low, int64_t high, int base = 10) {
    int64_t value = 0;
    const auto [end, code] =
        std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, base);
    if (code == std::errc::invalid_argument) {
      error(fmt::format("expected {} before '{}'", what, rest_));
    }
    if (code != std::errc() || value < low || value > high) {
      error(fmt::format("{} is out of range", what));
    }
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }
  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size())); }

 private:
  std::string_view rest_;
  int number_;
};

std::optional<Op> find_op(std::string_view name) {
  for (int i = 0; i < static_cast<int>(Op::kCount); ++i) {
    if (info(static_cast<Op>(i)).name == name) return static_cast<Op>(i);
  }
  return std::nullopt;
}

Type read_type(Line& line) {
  const std::string_view name = line.word("a type");
  for (const Type type : {Type::kPred, Type::kB16, Type::kI32, Type::kI64, Type::kF32}) {
    if (name_of(type) == name) return type;
  }
  line.error(fmt::format("'{}' is no type", name));
}

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  Function run() {
    read_header();
    Line line = next_line();
    while (line.accept("smem")) {
      read_smem_object(line);
      line = next_line();
    }
    const Line last = read_block(function_.body, line, 0);
    last.expect_end();
    if (next_text()) fail_text("text after the kernel's closing brace");
    for (Inst& inst : function_.body) resolve_types(inst);
    return std::move(function_);
  }

 private:
  [[noreturn]] void fail_text(std::string_view reason) const {
    fail(ErrorKind::kInternal, "kernel IR text, line {}: {}", line_number_, reason);
  }

  // The next line that is not blank.
  std::optional<Line> next_text() {
    while (!rest_.empty()) {
      const size_t end = std::min(rest_.find('\n'), rest_.size());
      const std::string_view text = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++line_number_;
      if (text.find_first_not_of(' ') != std::string_view::npos) return Line(text, line_number_);
    }
    return std::nullopt;
  }
  Line next_line() {
    const std::optional<Line> line = next_text();
    if (!line) fail_text("the text ends inside a block");
    return *line;
  }

  void read_header() {
    std::optional<Line> first = next_text();
    if (!first) fail_text("there is no kernel");
    Line& line = *first;
    line.expect("kernel");
    line.expect("@");
    function_.name = line.word("the kernel's name");
    line.expect("(");
    while (!line.accept(")")) {
      if (!function_.params.empty()) line.expect(",");
      const std::string name(line.word("a parameter's name"));
      if (find_name(function_.params, name)) {
        line.error(fmt::format("there are two parameters '{}'", name));
      }
      line.expect(":");
      function_.params.push_back({name, read_type(line)});
    }
    constexpr int kMax = std::numeric_limits<int>::max();
    line.expect("threads");
    function_.block_threads = static_cast<int>(line.number("the number of threads", 0, kMax));
    line.skip_blanks();
    line.expect("min_blocks");
    function_.min_blocks_per_sm = static_cast<int>(line.number("the number of blocks", 0, kMax));
    line.skip_blanks();
    line.expect("{");
    line.expect_end();
  }

  void read_smem_object(Line& line) {
    constexpr int kMax = std::numeric_limits<int>::max() / 2;
    SmemObject object;
    line.expect("@");
    object.name = line.word("an object's name");
    if (find_name(function_.smem, object.name)) {
      line.error(fmt::format("there are two shared-memory objects '{}'", object.name));
    }
    line.expect("offset");
    object.offset_bytes = static_cast<int>(line.number("an offset", 0, kMax));
    line.skip_blanks();
    line.expect("bytes");
    object.bytes = static_cast<int>(line.number("a size", 0, kMax));
    line.skip_blanks();
    line.expect_end();
    function_.smem.push_back(object);
  }

  // Reads lines, of which `line` is the first, up to the one that closes the block; returns what
  // follows the brace.
  Line read_block(Block& block, Line line, int depth) {
    if (depth > kMaxNesting) line.error("blocks are nested too deeply");
    while (!line.accept("}")) {
      block.push_back(read_inst(line, depth));
      line = next_line();
    }
    return line;
  }

  Inst read_inst(Line& line, int depth) {
    if (line.peek() == '#') {
      const std::string_view text = line.rest().substr(1);
      return {Op::kComment, {}, {}, {}, {}, std::string(text.substr(text.starts_with(' ')))};
    }
    if (line.accept("for")) return read_for(line, depth);
    if (line.accept("while")) return read_while(line, depth);
    if (line.accept("if")) return read_if(Op::kIf, line, depth);
    if (line.accept("if.uniform")) return read_if(Op::kIfUniform, line, depth);
    Inst inst{};
    if (line.peek() == '%' || line.peek() == '$') inst.results = read_results(line);
    const std::string_view name = line.word("an operation");
    const std::optional<Op> op = find_op(name);
    if (!op) line.error(fmt::format("there is no operation '{}'", name));
    inst.op = *op;
    if (*op == Op::kParam) {
      inst.operands = {read_reference(line, function_.params, "parameter")};
    } else if (*op == Op::kSmem) {
      inst.operands = {read_reference(line, function_.smem, "shared-memory object")};
    } else if (!line.at_end()) {
      do inst.operands.push_back(read_operand(line));
      while (line.accept(","));
    }
    line.expect_end();
    return inst;
  }

  Inst read_for(Line& line, int depth) {
    Inst inst{Op::kFor, read_results(line), {}, {}, {}, {}};
    inst.operands.push_back(read_operand(line));
    line.expect("to");
    inst.operands.push_back(read_operand(line));
    line.expect("step");
    inst.operands.push_back(read_operand(line));
    line.expect("{");
    line.expect_end();
    read_block(inst.body, next_line(), depth + 1).expect_end();
    return inst;
  }

  Inst read_while(Line& line, int depth) {
    Inst inst{Op::kWhile, {}, {read_operand(line)}, {}, {}, {}};
    line.expect("{");
    line.expect_end();
    read_block(inst.body, next_line(), depth + 1).expect_end();
    return inst;
  }

  Inst read_if(Op op, Line& line, int depth) {
    Inst inst{op, {}, {read_operand(line)}, {}, {}, {}};
    line.expect("{");
    line.expect_end();
    Line end = read_block(inst.body, next_line(), depth + 1);
    if (end.accept("else")) {
      end.expect("{");
      end.expect_end();
      end = read_block(inst.orelse, next_line(), depth + 1);
    }
    end.expect_end();
    return inst;
  }

  template <typename Named>
  static std::optional<size_t> find_name(const std::vector<Named>& list, std::string_view name) {
    const auto it = std::find_if(list.begin(), list.end(),
                                 [&](const Named& item) { return item.name == name; });
    if (it == list.end()) return std::nullopt;
    return static_cast<size_t>(it - list.begin());
  }

  template <typename Named>
  static Value read_reference(Line& line, const std::vector<Named>& list, std::string_view what) {
    line.expect("@");
    const std::string_view name = line.word(fmt::format("the name of a {}", what));
    const std::optional<size_t> number = find_name(list, name);
    if (!number) line.error(fmt::format("there is no {} '{}'", what, name));
    return {Value::Kind::kConst, Type::kI32, *number};
  }

  // %N or $N; its type is not known yet.
  Value read_register(Line& line) {
    Value value{Value::Kind::kRegister, Type::kI32, 0};
    if (line.accept("$")) {
      value.kind = Value::Kind::kVariable;
    } else {
      line.expect("%");
    }
    value.bits = static_cast<uint64_t>(line.number("a register's number", 0, kMaxRegister - 1));
    function_.num_registers = std::max(function_.num_registers, static_cast<int>(value.bits) + 1);
    line.skip_blanks();
    return value;
  }

  std::vector<Value> read_results(Line& line) {
    std::vector<Value> results;
    do {
      Value value = read_register(line);
      line.expect(":");
      value.type = read_type(line);
      definitions_.emplace(value.bits, value);
      results.push_back(value);
    } while (line.accept(","));
    line.expect("=");
    return results;
  }

  Value read_operand(Line& line) {
    if (line.peek() == '%' || line.peek() == '$') {
      const Value value = read_register(line);
      first_use_.emplace(value.bits, line.number());
      return value;
    }
    if (line.rest().starts_with("0f")) {
      const std::string_view digits = line.word("a constant").substr(2);
      Line hex(digits, line.number());
      const int64_t bits = hex.number("an f32's bits", 0, 0xFFFFFFFF, 16);
      if (digits.size() != 8 || !hex.at_end()) line.error("an f32 is 0f and eight hex digits");
      return {Value::Kind::kConst, Type::kF32, static_cast<uint64_t>(bits)};
    }
    using Limits = std::numeric_limits<int64_t>;
    const int64_t value = line.number("an operand", Limits::min(), Limits::max());
    if (line.peek() == 'L') {
      line.expect("L");
      return {Value::Kind::kConst, Type::kI64, static_cast<uint64_t>(value)};
    }
    line.skip_blanks();
    if (value != static_cast<int32_t>(value)) line.error("an i32 constant is out of range");
    return {Value::Kind::kConst, Type::kI32, static_cast<uint32_t>(value)};
  }

  void resolve_types(Inst& inst) {
    for (Value& operand : inst.operands) {
      if (operand.is_const()) continue;
      const auto it = definitions_.find(operand.bits);
      if (it == definitions_.end() || it->second.kind != operand.kind) {
        const char sigil = operand.kind == Value::Kind::kVariable ? '$' : '%';
        fail(ErrorKind::kInternal, "kernel IR text, line {}: {}{} is defined nowhere",
             first_use_.at(operand.bits), sigil, operand.bits);
      }
      operand.type = it->second.type;
    }
    for (Inst& inner : inst.body) resolve_types(inner);
    for (Inst& inner : inst.orelse) resolve_types(inner);
  }

  std::string_view rest_;
  int line_number_ = 0;
  Function function_;
  std::map<uint64_t, Value> definitions_;  // by number; the first one
  std::map<uint64_t, int> first_use_;      // line, by number
};

}  // namespace

Function parse(std::string_view text) {
  return Parser(text).run();
}

}  // namespace sagejit::ir
