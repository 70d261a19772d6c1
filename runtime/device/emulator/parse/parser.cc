// Module level: directives, variables, entry headers.
#include "runtime/device/emulator/parse/parser.h"

#include <array>
#include <bit>
#include <cstring>

namespace sagejit::emulator {
namespace {

Type expect_type(TokenStream& ts) {
  const std::string_view word = ts.expect_word("a type");
  const auto type = word.starts_with('.') ? find_type(word.substr(1)) : std::nullopt;
  if (!type) ts.fail(fmt::format("'{}' is not a type this emulator knows", word));
  return *type;
}

uint64_t element_bits(TokenStream& ts, const Variable& v) {
  const bool minus = ts.accept("-");
  const Token& t = ts.take();
  uint64_t bits = t.value;
  const bool is_float = t.kind == TokenKind::kFloat32 || t.kind == TokenKind::kFloat64;
  if (!is_float && t.kind != TokenKind::kInteger) {
    ts.source().unsupported(t.line, fmt::format("initialiser '{}' is not a number", t.text));
  }
  if (is_float && info(v.type).is_float) {
    const double value = t.kind == TokenKind::kFloat64
                             ? std::bit_cast<double>(t.value)
                             : std::bit_cast<float>(static_cast<uint32_t>(t.value));
    const double x = minus ? -value : value;
    if (v.type == Type::kF64) return std::bit_cast<uint64_t>(x);
    if (v.type == Type::kF32) return std::bit_cast<uint32_t>(static_cast<float>(x));
    ts.source().unsupported(t.line, "float initialisers of half types");
  }
  return minus ? 0 - bits : bits;
}

// Writes the nested list (or single value) into v.init in row-major order.
void parse_initialiser(TokenStream& ts, Variable& v, size_t& position) {
  if (ts.accept("{")) {
    while (!ts.accept("}")) {
      parse_initialiser(ts, v, position);
      if (!ts.peek().is("}")) ts.expect(",");
    }
    return;
  }
  const size_t bytes = info(v.type).bytes;
  if (position + bytes > v.bytes) ts.fail(fmt::format("too many initialisers for '{}'", v.name));
  const uint64_t bits = element_bits(ts, v);
  std::memcpy(v.init.data() + position, &bits, bytes);
  position += bytes;
}

void parse_dim3(TokenStream& ts, uint32_t (&dim)[3]) {
  for (uint32_t& d : dim) d = 1;
  for (int i = 0; i < 3; ++i) {
    dim[i] = static_cast<uint32_t>(ts.expect_integer("a block size"));
    if (!ts.accept(",")) break;
  }
}

void parse_params(TokenStream& ts, AstKernel& kernel) {
  uint64_t offset = 0;
  ts.expect("(");
  while (!ts.accept(")")) {
    ts.expect(".param");
    Variable v = parse_variable(ts, Space::kParam);
    offset = (offset + v.align - 1) / v.align * v.align;
    v.offset = offset;
    offset += v.bytes;
    kernel.params.push_back(std::move(v));
    if (!ts.peek().is(")")) ts.expect(",");
  }
}

void parse_entry(TokenStream& ts, AstModule& module) {
  AstKernel kernel;
  kernel.line = ts.peek().line;
  kernel.name = ts.expect_word("a kernel name");
  if (ts.peek().is("(")) parse_params(ts, kernel);
  while (!ts.peek().is("{")) {
    const uint32_t line = ts.peek().line;
    const std::string_view word = ts.expect_word("a directive or the kernel's body");
    if (word == ".maxntid") {
      parse_dim3(ts, kernel.max_ntid);
    } else if (word == ".reqntid") {
      parse_dim3(ts, kernel.req_ntid);
    } else if (word == ".minnctapersm") {
      kernel.min_blocks = static_cast<uint32_t>(ts.expect_integer("a number"));
    } else if (word == ".maxnreg") {
      kernel.max_registers = static_cast<uint32_t>(ts.expect_integer("a number"));
    } else {
      ts.source().unsupported(line, fmt::format("directive '{}' of an entry", word));
    }
  }
  BodyParser(ts, module, kernel).parse();
  module.kernels.push_back(std::move(kernel));
}

void parse_header(TokenStream& ts, AstModule& module, std::string_view word) {
  if (word == ".version") {
    const Token& t = ts.take();
    module.version = t.text;
  } else if (word == ".target") {
    module.target = ts.expect_word("a target");
    while (ts.accept(",")) ts.expect_word("a target option");
  } else if (ts.expect_integer("an address size") != 64) {
    ts.fail("only .address_size 64 is supported");
  }
}

// .file and .loc of -lineinfo: debug data without meaning for execution.
void skip_line(TokenStream& ts) {
  const uint32_t line = ts.peek().line;
  while (!ts.at_end() && ts.peek().line == line) ts.take();
}

void parse_declaration(TokenStream& ts, AstModule& module, std::string_view word, uint32_t line) {
  static constexpr std::pair<std::string_view, Space> kSpaces[] = {
      {".global", Space::kGlobal}, {".const", Space::kConst}, {".shared", Space::kShared}};
  for (const auto& [name, space] : kSpaces) {
    if (word != name) continue;
    Variable v = parse_variable(ts, space);
    if (v.unsized && space != Space::kShared) {
      ts.source().unsupported(line, fmt::format("'{}' has no definition in this module", v.name));
    }
    module.variables.push_back(std::move(v));
    return ts.expect(";");
  }
  ts.source().unsupported(line, fmt::format("directive '{}' at module level", word));
}

}  // namespace

Variable parse_variable(TokenStream& ts, Space space) {
  Variable v;
  v.space = space;
  uint32_t align = 0;
  if (ts.accept(".align")) align = static_cast<uint32_t>(ts.expect_integer("an alignment"));
  v.type = expect_type(ts);
  if (space == Space::kParam && ts.accept(".ptr")) {
    for (std::string_view s : {".global", ".shared", ".const", ".local"}) ts.accept(s);
    if (ts.accept(".align")) ts.expect_integer("an alignment");  // of what it points to
  }
  v.name = ts.expect_word("a variable name");
  uint64_t count = 1;
  while (ts.accept("[")) {
    if (ts.accept("]")) {
      v.unsized = true;
      count = 0;
      continue;
    }
    count *= ts.expect_integer("an array size");
    ts.expect("]");
  }
  v.align = align != 0 ? align : info(v.type).bytes;
  if (std::popcount(v.align) != 1)
    ts.fail(fmt::format("alignment {} is not a power of two", v.align));
  v.bytes = count * info(v.type).bytes;
  v.init.resize(space == Space::kGlobal || space == Space::kConst ? v.bytes : 0);
  if (ts.accept("=")) {
    size_t position = 0;
    if (v.init.empty()) ts.fail(fmt::format("'{}' cannot have an initialiser", v.name));
    parse_initialiser(ts, v, position);
  }
  return v;
}

AstModule parse_module(std::string_view text) {
  TokenStream ts(text);
  AstModule module;
  while (!ts.at_end()) {
    const uint32_t line = ts.peek().line;
    std::string_view word = ts.expect_word("a directive");
    while (word == ".visible" || word == ".extern" || word == ".weak" || word == ".common") {
      word = ts.expect_word("a directive");
    }
    if (word == ".entry") {
      parse_entry(ts, module);
    } else if (word == ".version" || word == ".target" || word == ".address_size") {
      parse_header(ts, module, word);
    } else if (word == ".file" || word == ".loc") {
      skip_line(ts);
    } else {
      parse_declaration(ts, module, word, line);
    }
  }
  if (module.version.empty() || module.target.empty())
    ts.fail("no .version and .target: not a PTX module");
  return module;
}

}  // namespace sagejit::emulator
