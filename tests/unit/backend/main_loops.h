// The main loops of a kernel's machine code, as nvdisasm prints it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sagejit {

// The instructions of each main loop, without their addresses, in the order of the text.
//
// A main loop is an innermost loop that has tensor-core instructions (HMMA, IGMMA, ...): a strongly
// connected part of the control-flow graph that, without its entry, has no such part with
// tensor-core instructions in it. So it may contain loops that wait for a barrier, and it counts
// what the assembler put elsewhere, a wait's retries or a rare branch, as far as it comes back;
// what runs once for a tile of queries is outside.
std::vector<std::vector<std::string>> main_loops(std::string_view sass);

}  // namespace sagejit
