// Happens-before between the agents of a block, as vector clocks.
//
// An agent is whoever accesses shared memory on its own account: a warp, the tensor core of a
// warpgroup (reads of wgmma), the copies that complete on one mbarrier (writes of bulk copies), or
// a single thread, once it has released by itself. Each warp knows for every agent the clock up to
// which that agent's accesses are ordered before its own (`order`). An access stamped with clock c
// of agent a is ordered before one by warp v when c < order_v[a].
//
// Order flows through barriers: arriving releases what the thread did and knows, waiting acquires
// it. Lanes that acquire without the rest of their warp know more than it until the warp syncs;
// lanes that release without the rest of their warp release their own accesses only.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device/emulator/module.h"

namespace sagejit::emulator {

inline constexpr unsigned kMaxWarps = 32;
inline constexpr unsigned kWarpgroupWarps = 4;
inline constexpr unsigned kMaxWarpgroups = kMaxWarps / kWarpgroupWarps;
inline constexpr unsigned kMaxMbarriers = 88;
inline constexpr unsigned kMaxAgents = 256;
// Agents by number: warps, then:
inline constexpr unsigned kWarpgroupAgents = kMaxWarps;
inline constexpr unsigned kMbarrierAgents = kWarpgroupAgents + kMaxWarpgroups;
inline constexpr unsigned kThreadAgents = kMbarrierAgents + kMaxMbarriers;

// Accesses are stamped with a thread number; those of agents that are no warp use numbers behind
// the threads: agent * 32.
inline constexpr uint32_t agent_thread(unsigned agent) {
  return agent * kWarpLanes;
}
inline constexpr unsigned agent_of(uint32_t thread) {
  return thread / kWarpLanes;
}
inline constexpr bool is_thread(uint32_t thread) {
  return thread < kMaxWarps * kWarpLanes;
}

// Calls fn(lane) for the lanes of a mask, one after the other in ascending order.
template <class Fn>
void each_lane(uint32_t mask, Fn&& fn) {
  for (; mask != 0; mask &= mask - 1) fn(static_cast<uint32_t>(std::countr_zero(mask)));
}

// Per agent: its accesses before this clock are ordered.
using Order = std::array<uint32_t, kMaxAgents>;

inline void join(Order& into, const Order& from) {
  for (unsigned i = 0; i < kMaxAgents; ++i) into[i] = into[i] > from[i] ? into[i] : from[i];
}
// What both know.
inline void meet(Order& into, const Order& from) {
  for (unsigned i = 0; i < kMaxAgents; ++i) into[i] = into[i] < from[i] ? into[i] : from[i];
}

// A fence.proxy.async: generic writes of these lanes up to `clock` are visible to the async proxy.
// Or a fence.mbarrier_init: only initialisations of mbarriers are.
struct ProxyFence {
  uint32_t clock = 0;
  uint32_t lanes = 0;
  bool only_inits = false;
};

// What a block knows about its threads beside the clocks.
struct ClockTable {
  std::array<uint8_t, kMaxWarps * kWarpLanes> thread_agent{};  // 0: the thread has none
  unsigned num_thread_agents = 0;
  std::array<std::vector<ProxyFence>, kMaxWarps> fences;  // by warp, clocks ascending

  void reset();
  // Agent of a thread that releases on its own; 0 when there are too many such threads.
  unsigned agent_for(uint32_t thread);
};

// Clocks of one warp.
struct WarpClock {
  uint32_t now = 1;
  Order order{};
  // lane_order[a][b]: accesses of lane b before this clock are ordered before lane a's. Partial
  // masks only.
  std::unique_ptr<std::array<std::array<uint32_t, kWarpLanes>, kWarpLanes>> lane_order;
  uint32_t ahead = 0;  // lanes that know more than the warp: (*lane_known)[lane]
  std::unique_ptr<std::array<Order, kWarpLanes>> lane_known;

  // All lanes of `mask` wait for each other; `whole` when those are all lanes of the warp.
  void sync(uint32_t warp, uint32_t mask, bool whole);
  // Lanes `mask` learn `from`.
  void acquire(const Order& from, uint32_t mask, bool whole);
  // Adds to `into` what lanes `mask` of the warp did so far and know. Advances the clock.
  void release(uint32_t warp, uint32_t mask, bool whole, ClockTable& table, Order& into);

  uint32_t known(uint32_t lane, unsigned agent) const {
    const uint32_t warp = order[agent];
    if ((ahead >> lane & 1) == 0) return warp;
    const uint32_t own = (*lane_known)[lane][agent];
    return own > warp ? own : warp;
  }
};

}  // namespace sagejit::emulator
