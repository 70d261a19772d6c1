// The loading warpgroup of the wgmma kernel.
#pragma once

#include "compiler/kernels/wgmma_block.h"

namespace sagejit {

// Its first warp takes one query tile after the other and fills the rings: it stores the words and
// starts the copies. The others have nothing to do.
void load_tiles(WgmmaBlock& block);

}  // namespace sagejit
