// What an assembler says about its code: read, checked and judged, for all assemblers alike.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compiler/backend/assemble/assembler.h"

namespace sagejit {

// Reads the verbose report of ptxas (-v), in the log of whatever carries it:
//   Compiling entry function 'K' ...  |  N bytes stack frame, N bytes spill stores, N bytes spill
//   loads  |  Used N registers, ... N bytes smem
std::vector<KernelResources> parse_ptxas_report(std::string_view log);

// What makes an assembled kernel slower than it was meant to be, or "": register spills, or a
// warning that the assembler serialized wgmma or ignored setmaxnreg (C7504, C7508, C7511, C7512,
// C7514, C7520).
std::string find_assembly_fault(const MachineCode& code);

// Throws Error{kToolchain} naming the assembler unless there is a report of every kernel and the
// code, if any, is an ELF: without a report a kernel cannot be judged.
void check_machine_code(const MachineCode& code, std::string_view assembler);

}  // namespace sagejit
