#include "runtime/device/emulator/decode/special.h"

#include <chrono>

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {
namespace {

template <size_t I>
uint64_t tid(const Warp& w, unsigned lane) {
  return w.thread_index(w.thread(lane))[I];
}
template <size_t I>
uint64_t ntid(const Warp& w, unsigned) {
  return w.block->launch.block[I];
}
template <size_t I>
uint64_t ctaid(const Warp& w, unsigned) {
  return w.block->ctaid[I];
}
template <size_t I>
uint64_t nctaid(const Warp& w, unsigned) {
  return w.block->launch.grid[I];
}
template <uint64_t V>
uint64_t fixed(const Warp&, unsigned) {
  return V;
}
uint64_t clock(const Warp& w, unsigned) {
  return w.steps;
}
uint64_t globaltimer(const Warp&, unsigned) {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
uint64_t below(unsigned lane) {
  return (uint64_t{1} << lane) - 1;
}

// A launch without clusters is one of clusters of one block.
constexpr SpecialValue kSpecials[] = {
    {"%tid.x", 4, false, tid<0>},
    {"%tid.y", 4, false, tid<1>},
    {"%tid.z", 4, false, tid<2>},
    {"%ntid.x", 4, false, ntid<0>},
    {"%ntid.y", 4, false, ntid<1>},
    {"%ntid.z", 4, false, ntid<2>},
    {"%ctaid.x", 4, false, ctaid<0>},
    {"%ctaid.y", 4, false, ctaid<1>},
    {"%ctaid.z", 4, false, ctaid<2>},
    {"%nctaid.x", 4, false, nctaid<0>},
    {"%nctaid.y", 4, false, nctaid<1>},
    {"%nctaid.z", 4, false, nctaid<2>},
    {"%laneid", 4, false, [](const Warp&, unsigned lane) { return uint64_t{lane}; }},
    {"%warpid", 4, false, [](const Warp& w, unsigned) { return uint64_t{w.index}; }},
    {"%nwarpid", 4, false, [](const Warp& w, unsigned) { return uint64_t{w.block->warps.size()}; }},
    {"%lanemask_eq", 4, false, [](const Warp&, unsigned lane) { return uint64_t{1} << lane; }},
    {"%lanemask_lt", 4, false, [](const Warp&, unsigned lane) { return below(lane); }},
    {"%lanemask_le", 4, false, [](const Warp&, unsigned lane) { return below(lane + 1); }},
    {"%lanemask_gt", 4, false,
     [](const Warp&, unsigned lane) { return kAllLanes & ~below(lane + 1); }},
    {"%lanemask_ge", 4, false, [](const Warp&, unsigned lane) { return kAllLanes & ~below(lane); }},
    {"%smid", 4, false, fixed<0>},
    {"%nsmid", 4, false, fixed<1>},
    {"%gridid", 8, false, fixed<0>},
    {"%cluster_ctarank", 4, false, fixed<0>},
    {"%cluster_nctarank", 4, false, fixed<1>},
    {"%cluster_ctaid.x", 4, false, fixed<0>},
    {"%cluster_ctaid.y", 4, false, fixed<0>},
    {"%cluster_ctaid.z", 4, false, fixed<0>},
    {"%cluster_nctaid.x", 4, false, fixed<1>},
    {"%cluster_nctaid.y", 4, false, fixed<1>},
    {"%cluster_nctaid.z", 4, false, fixed<1>},
    {"%dynamic_smem_size", 4, false,
     [](const Warp& w, unsigned) { return uint64_t{w.block->launch.dynamic_shared_bytes}; }},
    {"%total_smem_size", 4, false,
     [](const Warp& w, unsigned) { return uint64_t{w.block->launch.shared_end - kSharedBase}; }},
    {"%clock", 4, true, clock},
    {"%clock_hi", 4, true, fixed<0>},
    {"%clock64", 8, true, clock},
    {"%globaltimer", 8, true, globaltimer},
    {"%globaltimer_lo", 4, true, globaltimer},
};

}  // namespace

const SpecialValue* find_special(std::string_view name) {
  for (const SpecialValue& s : kSpecials) {
    if (s.name == name) return &s;
  }
  return nullptr;
}

void fill_specials(Warp& w, const Kernel& kernel) {
  for (const SpecialUse& use : kernel.specials) {
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      const uint64_t value = use.value->value(w, lane);
      std::memcpy(w.banks[Operand::kRegisters] + use.offset + lane * use.value->bytes, &value,
                  use.value->bytes);
    }
  }
}

}  // namespace sagejit::emulator
