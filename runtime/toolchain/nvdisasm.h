// nvdisasm, which prints machine code as text (SASS). Nothing that is compiled needs it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace sagejit {

// "" with the reason in `why_not` if `program --version` does not say that it is nvdisasm.
std::string nvdisasm_version(const std::string& program, std::string& why_not);

// `cubin`: of one kernel or several. Throws Error{kToolchain} with what nvdisasm says, where it
// knows less than the cubin's target, say; Error{kIo} if it cannot write to `temporary_dir`.
std::string disassemble(const std::string& program, std::span<const uint8_t> cubin,
                        const std::string& temporary_dir = "/tmp");

}  // namespace sagejit
