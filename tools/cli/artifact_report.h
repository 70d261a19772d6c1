// What an artifact is, for people: kernels, their resources, launches and workspace.
#pragma once

#include <string>

#include "compiler/artifact.h"

namespace sagejit::cli {

// Registers, spills and shared memory of each kernel; says so where nothing was assembled.
std::string describe_resources(const Artifact& artifact);

// All of it: `sagejit compile --emit report`.
std::string describe_artifact(const Artifact& artifact);

}  // namespace sagejit::cli
