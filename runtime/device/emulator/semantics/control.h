// Control-flow pieces that the decoder needs.
#pragma once

#include "runtime/device/emulator/decode/special.h"
#include "runtime/device/emulator/module.h"

namespace sagejit::emulator {

// Turns a mov from a special register that changes into a read of its present value.
void bind_clock_read(const SpecialValue& value, Instr& in);

}  // namespace sagejit::emulator
