// What an artifact is, for people: kernels, their resources, launches and workspace.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "compiler/artifact.h"

namespace sagejit::cli {

// What made it: a line of the back end and, where there is machine code, one of the assembler.
std::string describe_toolchain(std::string_view backend, std::string_view assembler);

// Registers, spills and shared memory of each kernel; says so where nothing was assembled.
std::string describe_resources(const Artifact& artifact);

// The launches of a forward call: grids as expressions, shared memory where `smem_bytes` of each is
// given; and the workspace.
std::string describe_launches(const Plan& plan, std::span<const int> smem_bytes = {});
std::string describe_workspace(const Plan& plan);

// All of it: `sagejit compile --emit report`.
std::string describe_artifact(const Artifact& artifact);

}  // namespace sagejit::cli
