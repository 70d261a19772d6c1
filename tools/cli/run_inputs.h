// What `run` computes on: layers of captured Q, K, V, or one generated problem.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/reference/inputs.h"

namespace sagejit::cli {

struct Layer {
  std::string name;  // "layer.3", or the distribution
  reference::Inputs inputs;

  reference::ProblemShape shape() const;
};

// Every layer of a safetensors file: tensors q, k, v, or PREFIX.q, PREFIX.k, PREFIX.v, in natural
// order. Throws Error{kIo} or Error{kArgument}.
std::vector<Layer> load_layers(const std::string& path);

enum class Layout { kBhtd, kBthd };

// The layer with its elements converted to `type` and laid out in memory as asked.
Layer prepared(Layer layer, DType type, Layout layout);

}  // namespace sagejit::cli
