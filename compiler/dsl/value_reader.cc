#include "compiler/dsl/value_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace sagejit::dsl {

ValueReader::ValueReader(const Value& value, Diagnostics& diagnostics)
    : value_(value), diagnostics_(diagnostics) {
  const Span span = value.span();
  end_ = {TokenKind::kEnd, {}, {span.file, span.end, span.end}, value.tokens.back().line};
}

const Token& ValueReader::peek(size_t ahead) const {
  return at_ + ahead < value_.tokens.size() ? value_.tokens[at_ + ahead] : end_;
}

Token ValueReader::take() {
  const Token token = peek();
  if (!at_end()) ++at_;
  return token;
}

bool ValueReader::accept(std::string_view mark) {
  if (!peek().is(mark)) return false;
  ++at_;
  return true;
}

void ValueReader::expect(std::string_view mark, std::string_view note) {
  if (!accept(mark)) fail_expected(fmt::format("`{}`", mark), std::string(note));
}

void ValueReader::expect_end(std::string_view note) {
  if (!at_end()) {
    fail(peek().span, fmt::format("unexpected {} after the value", describe(peek())),
         std::string(note));
  }
}

int ValueReader::integer(std::string_view what, std::string_view note_if_negative) {
  if (peek().is("-") && peek(1).kind == TokenKind::kNumber) {
    fail(join(peek().span, peek(1).span), fmt::format("{} cannot be negative", what),
         std::string(note_if_negative));
  }
  if (peek().kind != TokenKind::kNumber) fail_expected(fmt::format("{}, a whole number", what));
  return parse_integer(take(), what);
}

int ValueReader::parse_integer(const Token& token, std::string_view what) {
  int value = 0;
  const char* end = token.text.data() + token.text.size();
  const auto [stop, error] = std::from_chars(token.text.data(), end, value);
  if (error == std::errc::result_out_of_range) {
    fail(token.span, fmt::format("{} is too large for {}", token.text, what),
         fmt::format("whole numbers go up to {}", std::numeric_limits<int>::max()));
  }
  if (stop != end) {
    fail(token.span, fmt::format("{} is a whole number, {} is not", what, token.text));
  }
  return value;
}

double ValueReader::number(std::string_view what) {
  const bool negative = accept("-");
  if (peek().kind != TokenKind::kNumber) fail_expected(fmt::format("{}, a number", what));
  const double value = parse_number(take());
  return negative && value != 0.0 ? -value : value;
}

double ValueReader::parse_number(const Token& token) {
  double value = 0.0;
  const char* end = token.text.data() + token.text.size();
  const auto [stop, error] = std::from_chars(token.text.data(), end, value);
  if (error != std::errc{} || stop != end || !std::isfinite(value)) {
    fail(token.span, fmt::format("`{}` is beyond what a double can hold", token.text),
         "magnitudes go from 2.2e-308 to 1.8e308");
  }
  return value;
}

void ValueReader::fail(Span span, std::string message, std::string note) {
  diagnostics_.error(span, std::move(message), std::move(note));
  throw ValueRejected{};
}

void ValueReader::fail_expected(std::string_view what, std::string note) {
  const std::string found = at_end() ? "the end of the value" : describe(peek());
  fail(peek().span, fmt::format("expected {}, found {}", what, found), std::move(note));
}

}  // namespace sagejit::dsl
