// The Error that a call throws, for checks of its kind and exact message.
#pragma once

#include "compiler/support/error.h"

namespace sagejit {

// A message that no error has stands for "nothing was thrown".
template <typename Call>
Error thrown_by(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "(nothing was thrown)");
}

}  // namespace sagejit
