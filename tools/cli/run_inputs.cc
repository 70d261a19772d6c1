#include "tools/cli/run_inputs.h"

#include <algorithm>

#include "compiler/support/error.h"
#include "tests/reference/safetensors.h"

namespace sagejit::cli {
namespace {

using reference::HostTensor;
using reference::ProblemShape;
using reference::SafetensorsFile;
using reference::Shape4;

// "layer.10" after "layer.9": runs of digits compare as numbers.
bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    size_t end_a = i, end_b = j;
    while (end_a < a.size() && digit(a[end_a])) ++end_a;
    while (end_b < b.size() && digit(b[end_b])) ++end_b;
    const std::string number_a = a.substr(i, end_a - i), number_b = b.substr(j, end_b - j);
    if (number_a.size() != number_b.size()) return number_a.size() < number_b.size();
    if (number_a != number_b) return number_a < number_b;
    i = end_a, j = end_b;
  }
  return a.size() - i < b.size() - j;
}

void check_layer(const std::string& path, const Layer& layer) {
  const Shape4 &q = layer.inputs.q.shape(), &k = layer.inputs.k.shape(),
               &v = layer.inputs.v.shape();
  if (q[0] != k[0] || k[0] != v[0] || k[1] != v[1] || k[2] != v[2] || q[3] != k[3] || k[1] == 0 ||
      q[1] % std::max<int64_t>(1, k[1]) != 0) {
    fail(ErrorKind::kArgument, "{}: q, k and v of '{}' do not fit one another", path, layer.name);
  }
}

HostTensor converted(const HostTensor& x, DType type, Layout layout) {
  const Shape4& shape = x.shape();
  HostTensor result(
      type, shape,
      layout == Layout::kBhtd ? reference::strides_bhtd(shape) : reference::strides_bthd(shape));
  reference::for_each_index(shape, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    result.set(b, h, t, d, x.get(b, h, t, d));
  });
  return result;
}

}  // namespace

ProblemShape Layer::shape() const {
  const Shape4 &q = inputs.q.shape(), &k = inputs.k.shape();
  return {q[0], q[1], k[1], q[2], k[2], q[3], inputs.v.shape()[3]};
}

std::vector<Layer> load_layers(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::read(path);
  std::vector<std::string> prefixes;
  for (const std::string& name : file.tensor_names()) {
    if (name != "q" && !name.ends_with(".q")) continue;
    const std::string prefix = name.substr(0, name.size() - 1);
    if (file.contains(prefix + "k") && file.contains(prefix + "v")) prefixes.push_back(prefix);
  }
  if (prefixes.empty()) {
    fail(ErrorKind::kArgument, "{}: no tensors q, k, v (or PREFIX.q, PREFIX.k, PREFIX.v) in it",
         path);
  }
  std::sort(prefixes.begin(), prefixes.end(), natural_less);
  std::vector<Layer> layers;
  for (const std::string& prefix : prefixes) {
    layers.push_back(
        {prefix.empty() ? "q, k, v" : prefix.substr(0, prefix.size() - 1),
         {file.tensor(prefix + "q"), file.tensor(prefix + "k"), file.tensor(prefix + "v")}});
    check_layer(path, layers.back());
  }
  return layers;
}

Layer prepared(Layer layer, DType type, Layout layout) {
  layer.inputs.q = converted(layer.inputs.q, type, layout);
  layer.inputs.k = converted(layer.inputs.k, type, layout);
  layer.inputs.v = converted(layer.inputs.v, type, layout);
  return layer;
}

}  // namespace sagejit::cli
