// C[m][n] (s32) = A[m][k] (s8) * B[n][k] (s8) on sm_90a, warp-specialised: warpgroup 0 copies tiles into an
// mbarrier ring, warpgroups 1 and 2 multiply 64 rows each with wgmma and store through shared memory.
// A and B come tiled: [row block of 128][k step of 64][k chunk of 16][row][16 bytes]. m, n multiples of 128.
#include <stdint.h>

constexpr int kTile = 128;
constexpr int kStep = 64;
constexpr int kStages = 3;
constexpr int kTileBytes = kTile * kStep;

__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ inline void init(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ inline void load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
      "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline uint64_t descriptor(uint32_t address) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(kTile * 16 / 16) << 16 | (uint64_t)(128 / 16) << 32;
}

#define D4(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
__device__ inline void wgmma(int (&d)[64], uint64_t a, uint64_t b, int scale) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,"
      "%58,%59,%60,%61,%62,%63}, %64, %65, p;\n}"
      : D16(0), D16(16), D16(32), D16(48)
      : "l"(a), "l"(b), "r"(scale));
}
__device__ inline void wgmma_wait(int (&d)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : D16(0), D16(16), D16(32), D16(48)::"memory");
}

extern "C" __global__ void __launch_bounds__(384, 1)
    gemm_warpgroups(const int8_t* a, const int8_t* b, int* c, int n, int k) {
  extern __shared__ __align__(1024) int8_t tiles[];
  __shared__ __align__(8) uint64_t barriers[2 * kStages];
  const uint32_t full = shared_address(barriers), empty = full + 8 * kStages, base = shared_address(tiles);
  const int steps = k / kStep;
  const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      init(full + 8 * i, 1);
      init(empty + 8 * i, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) {
      const int8_t* from_a = a + (long)blockIdx.y * steps * kTileBytes;
      const int8_t* from_b = b + (long)blockIdx.x * steps * kTileBytes;
      for (int i = 0; i < steps; ++i) {
        const int stage = i % kStages, round = i / kStages;
        wait(empty + 8 * stage, (round & 1) ^ 1);
        expect(full + 8 * stage, 2 * kTileBytes);
        load(base + stage * 2 * kTileBytes, from_a + (long)i * kTileBytes, kTileBytes, full + 8 * stage);
        load(base + (stage * 2 + 1) * kTileBytes, from_b + (long)i * kTileBytes, kTileBytes, full + 8 * stage);
      }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
  const int row = (group - 1) * 64, thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  int d[64];
  for (int i = 0; i < 64; ++i) d[i] = 0;
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages;
    wait(full + 8 * stage, i / kStages & 1);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    const uint32_t tile_a = base + stage * 2 * kTileBytes + row * 16, tile_b = base + (stage * 2 + 1) * kTileBytes;
    for (int kk = 0; kk < kStep / 32; ++kk) {
      wgmma(d, descriptor(tile_a + kk * 2 * kTile * 16), descriptor(tile_b + kk * 2 * kTile * 16), 1);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    wgmma_wait(d);
    if (thread == 0) arrive(empty + 8 * stage);
  }
  // The tiles are free: all copies have landed, and each warpgroup waits for both to have multiplied.
  asm volatile("bar.sync 1, 256;" ::: "memory");
  const uint32_t out = base + (group - 1) * 64 * 512;
  for (int i = 0; i < 64; i += 2) {
    const int r = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(out + r * 512 + column * 4), "r"(d[i]), "r"(d[i + 1])
                 : "memory");
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
  if (thread < 64) {
    int* to = c + (long)(blockIdx.y * kTile + row + thread) * n + blockIdx.x * kTile;
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(out + thread * 512), "r"(512)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;");
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
  }
}
