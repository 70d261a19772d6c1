// Launching PTX text on the emulator from tests.
#pragma once

#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/device/emulator/emulator.h"

namespace sagejit::emulator::test {

// Packed kernel parameters: values in order, each naturally aligned; vectors stand for their
// address.
class Params {
 public:
  template <class... Args>
  explicit Params(const Args&... args) {
    (add(args), ...);
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  template <class T>
  void add(const std::vector<T>& v) {
    add(v.data());
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void add(const T& value) {
    const size_t offset = (bytes_.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    bytes_.resize(offset + sizeof(T));
    std::memcpy(bytes_.data() + offset, &value, sizeof(T));
  }
  std::vector<std::byte> bytes_;
};

template <class T>
MemoryRange range(const std::vector<T>& v, std::string name, bool writable = true) {
  return {reinterpret_cast<uint64_t>(v.data()), v.size() * sizeof(T), writable, std::move(name)};
}

// A module with one kernel `k` that takes `params` ("u64 a, u32 n") and has `body`. The registers
// %p0-9, %h0-9 (16 bit), %r0-39, %f0-19, %rd0-19, %fd0-9 are declared.
inline std::string kernel_text(std::string_view params, std::string_view body,
                               std::string_view module_scope = "",
                               std::string_view target = "sm_90") {
  std::string list;
  for (size_t begin = 0; begin < params.size();) {
    const size_t end = std::min(params.find(", ", begin), params.size());
    list += (list.empty() ? "" : ", ") + std::string(".param .") +
            std::string(params.substr(begin, end - begin));
    begin = end + 2;
  }
  return std::string(".version 8.0\n.target ") + std::string(target) + "\n.address_size 64\n" +
         std::string(module_scope) + "\n.visible .entry k(" + list + ")\n{\n" +
         ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<40>; .reg .f32 %f<20>; .reg .b64 "
         "%rd<20>; "
         ".reg .f64 %fd<10>;\n" +
         std::string(body) + "\nret;\n}\n";
}

struct Shape {
  uint32_t blocks = 1;
  uint32_t threads = 32;
  uint32_t dynamic_shared = 0;
};

inline Report run_text(std::string_view text, Shape shape, const Params& params,
                       std::span<const MemoryRange> memory, Options options = {}) {
  const Program program = Program::parse(text);
  LaunchConfig config;
  config.kernel = program.kernels().at(0).name;
  config.grid[0] = shape.blocks;
  config.block[0] = shape.threads;
  config.dynamic_shared_bytes = shape.dynamic_shared;
  config.params = params.bytes();
  config.memory = memory;
  config.options = options;
  return run(program, config);
}

// Runs body(out) with `out` a u64 parameter, one u32 per thread; the body leaves its result in %r0.
inline std::vector<uint32_t> run_lanes(std::string_view body, uint32_t threads = 32) {
  std::vector<uint32_t> out(threads, 0xdeadbeef);
  const std::string text = kernel_text(
      "u64 out", "ld.param.u64 %rd0, [out];\nmov.u32 %r39, %tid.x;\n" + std::string(body) +
                     "\nmul.wide.u32 %rd1, %r39, 4;\nadd.u64 %rd0, %rd0, %rd1;\n"
                     "st.global.u32 [%rd0], %r0;");
  const MemoryRange memory[] = {range(out, "out")};
  run_text(text, {1, threads}, Params(out), memory);
  return out;
}

// A file of data/; empty when it cannot be read.
inline std::string read_data(const std::string& name) {
  std::ifstream file(std::string(SAGEJIT_EMULATOR_DATA) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// 1-based line of the first occurrence of `needle`.
inline uint32_t line_of(std::string_view text, std::string_view needle) {
  const size_t at = text.find(needle);
  uint32_t line = 1;
  for (char c : text.substr(0, at)) line += c == '\n' ? 1 : 0;
  return line;
}

}  // namespace sagejit::emulator::test
