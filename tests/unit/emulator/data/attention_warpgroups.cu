// O[m][128] (f32) = softmax(scale Q K^T) V for m = 192, head dims 128, on sm_90a: int8 Q and K, e4m3 V. Warpgroup 0
// copies K and V tiles of 128 keys into an mbarrier ring, warpgroups 1 to 3 take 64 rows each; the product with V
// runs behind the next one with K. Operands come tiled: Q and K [tile][chunk of 16 bytes][row][16], V likewise with
// rows of V^T and keys permuted within 32 so that accumulators of S are fragments of A. n is a multiple of 128.
#include <stdint.h>

constexpr int kKeys = 128, kDim = 128, kRows = 192, kStages = 2;
constexpr int kTileBytes = kKeys * kDim;

__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ inline void init(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ inline void load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
      "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline uint64_t descriptor(uint32_t address, int rows) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)rows << 16 | (uint64_t)(128 / 16) << 32;
}
__device__ inline void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define R4(c, x, i) c(x[i]), c(x[i + 1]), c(x[i + 2]), c(x[i + 3])
#define R16(c, x, i) R4(c, x, i), R4(c, x, i + 4), R4(c, x, i + 8), R4(c, x, i + 12)
#define R64(c, x) R16(c, x, 0), R16(c, x, 16), R16(c, x, 32), R16(c, x, 48)
#define REGS \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63}"

template <bool kFirst>
__device__ inline void qk(int (&s)[64], uint64_t q, uint64_t k) {
  if constexpr (kFirst) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " REGS ", %64, %65, 0;"
                 : R64("=r", s)
                 : "l"(q), "l"(k));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " REGS ", %64, %65, 1;"
                 : R64("+r", s)
                 : "l"(q), "l"(k));
  }
}
__device__ inline void scores(int (&s)[64], uint32_t q, uint32_t k) {
  qk<true>(s, descriptor(q, kRows), descriptor(k, kKeys));
#pragma unroll
  for (int i = 1; i < 4; ++i) {
    qk<false>(s, descriptor(q + i * 2 * kRows * 16, kRows), descriptor(k + i * 2 * kKeys * 16, kKeys));
  }
}
__device__ inline void pv(float (&o)[64], const uint32_t (&p)[16], uint32_t v) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " REGS ", {%64,%65,%66,%67}, %68, 1, 1, 1;"
                 : R64("+f", o)
                 : "r"(p[4 * i]), "r"(p[4 * i + 1]), "r"(p[4 * i + 2]), "r"(p[4 * i + 3]),
                   "l"(descriptor(v + i * 2 * kDim * 16, kDim)));
  }
}

struct Row {
  float max, sum, factor;
};

__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint32_t pack2(float low, float high) {
  uint16_t y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
  return y;
}

// Rows lane / 4 (even pairs of registers) and lane / 4 + 8 (odd pairs).
__device__ inline void softmax(const int (&s)[64], float scale, Row (&rows)[2], uint32_t (&p)[16]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    int top = s[2 * h];
#pragma unroll
    for (int i = 0; i < 16; ++i) top = max(max(top, s[4 * i + 2 * h]), s[4 * i + 2 * h + 1]);
    top = max(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = max(top, __shfl_xor_sync(0xffffffff, top, 2));
    const float high = fmaxf(rows[h].max, top * scale);
    rows[h].factor = exp2_approx(rows[h].max - high);
    rows[h].max = high;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      float e[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        e[j] = exp2_approx(fmaf((float)s[4 * (i + j / 2) + 2 * h + j % 2], scale, 8.0f - high));
        sum += e[j];
      }
      p[i / 4 * 4 + i / 2 % 2 * 2 + h] = pack2(e[0], e[1]) | pack2(e[2], e[3]) << 16;
    }
    rows[h].sum = rows[h].sum * rows[h].factor + sum;
  }
}

extern "C" __global__ void __launch_bounds__(512, 1)
    attention_warpgroups(const int8_t* q, const int8_t* k, const uint8_t* v, float* o, int n, float scale) {
  extern __shared__ __align__(1024) int8_t tiles[];
  __shared__ __align__(8) uint64_t barriers[1 + 4 * kStages];
  const uint32_t q_full = shared_address(barriers), k_full = q_full + 8, k_empty = k_full + 8 * kStages,
                 v_full = k_empty + 8 * kStages, v_empty = v_full + 8 * kStages;
  const uint32_t q_tile = shared_address(tiles), k_tile = q_tile + kRows * kDim, v_tile = k_tile + kStages * kTileBytes;
  const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0), steps = n / kKeys;
  if (threadIdx.x == 0) {
    init(q_full, 1);
    for (int i = 0; i < kStages; ++i) {
      init(k_full + 8 * i, 1);
      init(v_full + 8 * i, 1);
      init(k_empty + 8 * i, 3);
      init(v_empty + 8 * i, 3);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x == 0) {
      load(q_tile, q, kRows * kDim, q_full);
      for (int i = 0; i < steps; ++i) {
        const int stage = i % kStages;
        const uint32_t parity = (i / kStages & 1) ^ 1;
        wait(k_empty + 8 * stage, parity);
        load(k_tile + stage * kTileBytes, k + (long)i * kTileBytes, kTileBytes, k_full + 8 * stage);
        wait(v_empty + 8 * stage, parity);
        load(v_tile + stage * kTileBytes, v + (long)i * kTileBytes, kTileBytes, v_full + 8 * stage);
      }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
  const int thread = threadIdx.x % 128, lane = thread % 32, row = (group - 1) * 64;
  const uint32_t q_mine = q_tile + row * 16;
  int s[64];
  float acc[64];
  uint32_t p[16], next[16];
  Row rows[2] = {{-INFINITY, 0, 0}, {-INFINITY, 0, 0}};
#pragma unroll
  for (int i = 0; i < 64; ++i) acc[i] = 0;
  wait(q_full, 0);
  wait(k_full, 0);
  fence();
  scores(s, q_mine, k_tile);
  commit();
  asm volatile("wgmma.wait_group.sync.aligned 0;" : R64("+r", s)::"memory");
  if (thread == 0) arrive(k_empty);
  softmax(s, scale, rows, p);
  for (int i = 1; i < steps; ++i) {
    const int stage = i % kStages, before = (i - 1) % kStages;
    wait(k_full + 8 * stage, i / kStages & 1);
    wait(v_full + 8 * before, (i - 1) / kStages & 1);
    fence();
    scores(s, q_mine, k_tile + stage * kTileBytes);
    commit();
    pv(acc, p, v_tile + before * kTileBytes);
    commit();
    asm volatile("wgmma.wait_group.sync.aligned 1;" : R64("+r", s)::"memory");
    if (thread == 0) arrive(k_empty + 8 * stage);
    softmax(s, scale, rows, next);
    // p is tied to the wait too, or the compiler gives it the registers of `next` while it is in flight.
    asm volatile("wgmma.wait_group.sync.aligned 0;" : R64("+f", acc), R16("+r", p, 0)::"memory");
    if (thread == 0) arrive(v_empty + 8 * before);
#pragma unroll
    for (int j = 0; j < 64; ++j) acc[j] *= rows[j / 2 % 2].factor;
#pragma unroll
    for (int j = 0; j < 16; ++j) p[j] = next[j];
  }
  const int last = (steps - 1) % kStages;
  wait(v_full + 8 * last, (steps - 1) / kStages & 1);
  fence();
  pv(acc, p, v_tile + last * kTileBytes);
  commit();
  asm volatile("wgmma.wait_group.sync.aligned 0;" : R64("+f", acc)::"memory");
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows[h].sum += __shfl_xor_sync(0xffffffff, rows[h].sum, 1);
    rows[h].sum += __shfl_xor_sync(0xffffffff, rows[h].sum, 2);
  }
#pragma unroll
  for (int j = 0; j < 64; ++j) {
    const int r = row + thread / 32 * 16 + lane / 4 + j / 2 % 2 * 8, column = j / 4 * 8 + lane % 4 * 2 + j % 2;
    o[r * kDim + column] = acc[j] / rows[j / 2 % 2].sum;
  }
}
