// Hazards planted in small kernels: what the error must say.
#pragma once

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

namespace sagejit::emulator::test {

struct Planted {
  ErrorKind kind;
  std::string at;  // text on the offending line
  Index3 thread = {0, 0, 0};
  std::string writer = "";  // text on the line of the other access; empty: none expected
  Index3 writer_thread = {0, 0, 0};
  std::string says = "";  // part of the message
};

// Runs `text` and checks that it fails as planted. `data` is the u32 buffer "data" behind parameter
// a.
inline void expect_failure(const std::string& text, Shape shape, const Planted& planted,
                           Options options = {}) {
  std::vector<uint32_t> data(1024, 1);
  std::vector<uint32_t> constant(64, 2);
  const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
  try {
    run_text(text, shape, Params(data, constant), memory, options);
    FAIL("no error for: " << planted.at);
  } catch (const Error& e) {
    INFO(e.what());
    CHECK(e.kind() == planted.kind);
    CHECK(e.line() == line_of(text, planted.at));
    CHECK(e.info().block == Index3{0, 0, 0});
    CHECK(e.info().thread == planted.thread);
    CHECK(e.info().kernel == "k");
    CHECK(std::string(e.what()).find(planted.says) != std::string::npos);
    REQUIRE(e.info().last_writer.has_value() == !planted.writer.empty());
    if (e.info().last_writer) {
      CHECK(e.info().last_writer->line == line_of(text, planted.writer));
      CHECK(e.info().last_writer->thread == planted.writer_thread);
    }
  }
}

inline void expect_clean(const std::string& text, Shape shape, Options options = {}) {
  std::vector<uint32_t> data(1024, 1);
  std::vector<uint32_t> constant(64, 2);
  const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
  REQUIRE_NOTHROW(run_text(text, shape, Params(data, constant), memory, options));
}

}  // namespace sagejit::emulator::test
