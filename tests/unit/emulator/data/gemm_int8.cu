// C[m][n] (s32) = A[m][k] (s8) * B[n][k] (s8): 64 x 64 tiles, k in steps of 64 double-buffered with cp.async,
// ldmatrix with an XOR swizzle of 16-byte chunks, mma.m16n8k32. m, n multiples of 64, k of 64.
#include <stdint.h>

constexpr int kTile = 64;
constexpr int kStep = 64;

__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ inline void copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from));
}

// Row r, 16-byte chunk c of a 64 x 64 byte tile.
__device__ inline uint32_t chunk(uint32_t base, int r, int c) { return base + r * kStep + ((c ^ (r >> 1 & 3)) << 4); }

__device__ inline void load_tile(uint32_t to, const int8_t* from, int stride) {
  for (int i = threadIdx.x; i < kTile * kStep / 16; i += blockDim.x) {
    copy16(chunk(to, i / 4, i % 4), from + (long)(i / 4) * stride + i % 4 * 16);
  }
}

__device__ inline void ldmatrix4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ inline void mma(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

extern "C" __global__ void __launch_bounds__(128)
    gemm_int8(const int8_t* a, const int8_t* b, int* c, int n, int k) {
  extern __shared__ __align__(128) int8_t tiles[];
  const uint32_t base = shared_address(tiles);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int8_t* a_tile = a + (long)blockIdx.y * kTile * k;
  const int8_t* b_tile = b + (long)blockIdx.x * kTile * k;
  constexpr int kBytes = kTile * kStep;
  int acc[8][4] = {};
  load_tile(base, a_tile, k);
  load_tile(base + kBytes, b_tile, k);
  asm volatile("cp.async.commit_group;");
  for (int step = 0; step < k / kStep; ++step) {
    if (step + 1 < k / kStep) {
      const uint32_t next = base + (step + 1) % 2 * 2 * kBytes;
      load_tile(next, a_tile + (step + 1) * kStep, k);
      load_tile(next + kBytes, b_tile + (step + 1) * kStep, k);
    }
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    const uint32_t sa = base + step % 2 * 2 * kBytes, sb = sa + kBytes;
    for (int kk = 0; kk < 2; ++kk) {
      uint32_t fa[4];
      ldmatrix4(fa, chunk(sa, warp * 16 + lane % 16, kk * 2 + lane / 16));
      for (int j = 0; j < 4; ++j) {
        uint32_t fb[4];
        ldmatrix4(fb, chunk(sb, j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
        mma(acc[2 * j], fa, fb[0], fb[1]);
        mma(acc[2 * j + 1], fa, fb[2], fb[3]);
      }
    }
    __syncthreads();
  }
  for (int j = 0; j < 8; ++j) {
    for (int r = 0; r < 4; ++r) {
      const int row = blockIdx.y * kTile + warp * 16 + lane / 4 + 8 * (r / 2);
      const int column = blockIdx.x * kTile + j * 8 + lane % 4 * 2 + r % 2;
      c[(long)row * n + column] = acc[j][r];
    }
  }
}
