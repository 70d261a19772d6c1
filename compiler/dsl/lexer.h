// Text to tokens.
#pragma once

#include <vector>

#include "compiler/dsl/token.h"
#include "compiler/support/diagnostic.h"

namespace sagejit::dsl {

// All tokens of the file, ending in one kEnd. Comments (# to the end of the line) and blanks are
// dropped; what is not a token is diagnosed and dropped.
std::vector<Token> lex(const SourceFile& file, Diagnostics& diagnostics);

}  // namespace sagejit::dsl
