#include "compiler/kernels/generators.h"
#include "compiler/support/error.h"

namespace sagejit {

ir::Function generate_attention_wgmma(const ForwardPlan&) {
  fail(ErrorKind::kUnsupported, "the wgmma attention kernel is not generated yet");
}

}  // namespace sagejit
