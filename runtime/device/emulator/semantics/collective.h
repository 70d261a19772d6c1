// Participation rules of warp collectives.
#pragma once

#include "runtime/device/emulator/machine/warp.h"

namespace sagejit::emulator {

// .aligned collectives: all 32 lanes must be active. Throws kDivergentCollective.
void require_whole_warp(const Warp& w);

// .sync with a member mask: the executing lanes must be named, and the named lanes (of those that
// are threads) must be active. Throws kDivergentCollective.
void require_members(const Warp& w, uint32_t members);

}  // namespace sagejit::emulator
