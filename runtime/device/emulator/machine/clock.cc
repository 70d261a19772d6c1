#include "runtime/device/emulator/machine/clock.h"

#include <algorithm>
#include <bit>

namespace sagejit::emulator {
void ClockTable::reset() {
  thread_agent.fill(0);
  num_thread_agents = 0;
  for (auto& list : fences) list.clear();
}

unsigned ClockTable::agent_for(uint32_t thread) {
  uint8_t& agent = thread_agent[thread];
  if (agent == 0 && kThreadAgents + num_thread_agents < kMaxAgents) {
    agent = static_cast<uint8_t>(kThreadAgents + num_thread_agents++);
  }
  return agent;
}

void WarpClock::sync(uint32_t warp, uint32_t mask, bool whole) {
  ++now;
  Order together{};
  each_lane(mask & ahead, [&](uint32_t lane) { join(together, (*lane_known)[lane]); });
  if (whole) {
    if (ahead != 0) join(order, together);
    ahead = 0;
    order[warp] = now;
    return;
  }
  if ((mask & ahead) != 0) acquire(together, mask, false);
  if (!lane_order) {
    lane_order = std::make_unique<std::array<std::array<uint32_t, kWarpLanes>, kWarpLanes>>();
    for (auto& row : *lane_order) row.fill(0);
  }
  each_lane(mask,
            [&](uint32_t a) { each_lane(mask, [&](uint32_t b) { (*lane_order)[a][b] = now; }); });
}

void WarpClock::acquire(const Order& from, uint32_t mask, bool whole) {
  if (whole) return join(order, from);
  if (!lane_known) lane_known = std::make_unique<std::array<Order, kWarpLanes>>();
  each_lane(mask, [&](uint32_t lane) {
    Order& known = (*lane_known)[lane];
    if ((ahead >> lane & 1) == 0) known = order;
    join(known, from);
  });
  ahead |= mask;
}

void WarpClock::release(uint32_t warp, uint32_t mask, bool whole, ClockTable& table, Order& into) {
  ++now;
  join(into, order);
  each_lane(mask & ahead, [&](uint32_t lane) { join(into, (*lane_known)[lane]); });
  if (whole) {
    into[warp] = std::max(into[warp], now);
    return;
  }
  const auto add = [&](uint32_t lane, uint32_t clock) {
    // With too many lone threads their whole warp is taken as released: lenient.
    const unsigned agent = table.agent_for(warp * kWarpLanes + lane);
    uint32_t& slot = into[agent == 0 ? warp : agent];
    slot = std::max(slot, clock);
  };
  each_lane(mask, [&](uint32_t lane) {
    add(lane, now);
    if (!lane_order) return;
    each_lane(~mask, [&](uint32_t other) {
      const uint32_t clock = (*lane_order)[lane][other];
      if (clock > order[warp]) add(other, clock);
    });
  });
}

}  // namespace sagejit::emulator
