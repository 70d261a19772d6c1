// PTX inside CUDA C++: a kernel of the same name, parameters and launch bounds whose body is one
// statement of inline assembly, so that NVRTC, which reads no PTX, hands it to its assembler. The
// front end then has next to nothing to do.
#pragma once

#include <string>
#include <string_view>

namespace sagejit {

// `ptx`: a module of one entry with 32- and 64-bit parameters, .maxntid and, if it likes,
// .minnctapersm; beside it at most one array of dynamic shared memory. Throws Error{kUnsupported}
// for a module with anything else at its top level, Error{kInternal} for one that does not end as
// it should.
std::string stub_kernel(std::string_view ptx);

}  // namespace sagejit
