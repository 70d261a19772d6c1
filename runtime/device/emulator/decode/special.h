// Special registers: one row each.
#pragma once

#include <cstdint>
#include <string_view>

namespace sagejit::emulator {

struct Warp;

struct SpecialValue {
  std::string_view name;
  uint8_t bytes;
  bool changes;  // read anew by each mov (clocks); the others are fixed for the warp
  uint64_t (*value)(const Warp&, unsigned lane);
};

const SpecialValue* find_special(std::string_view name);

}  // namespace sagejit::emulator
