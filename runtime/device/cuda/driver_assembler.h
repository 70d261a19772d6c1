// The CUDA driver's own assembler, for machines with a GPU and no other tool of NVIDIA's.
//
// It leaves no cubin: artifacts keep their PTX, and the driver assembles it again whenever it loads
// one, or takes it from its own cache. The driver's linker (cuLinkAddData) would give a cubin, but
// treats PTX as relocatable (CUDA Driver API, "Module Management"), and relocatable kernels lose
// setmaxnreg. What the driver makes is judged like any other assembler's code: by the report in its
// log, or, where it writes none, by the attributes of the loaded kernel.
#pragma once

#include <memory>

#include "compiler/backend/assemble/assembler.h"

namespace sagejit {

// Throws Error{kToolchain} without driver or GPU. Its assemble() needs a GPU whose target that is
// (target_for_device() of target.h): Error{kToolchain} where there is none.
std::shared_ptr<const Assembler> make_driver_assembler();

}  // namespace sagejit
