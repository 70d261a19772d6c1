// The first of two kernels with the shape of a forward call, small enough to check by eye: copies q into the
// workspace and counts its blocks.
// toy_prepare.ptx is made from this by: nvcc -ptx -arch=compute_80 toy_prepare.cu
extern "C" __global__ void toy_prepare(const unsigned short* q, long long q_stride_b,
                                       long long q_stride_h, long long q_stride_m,
                                       unsigned short* copy, int* count, int hq, int m) {
  const long long row = (static_cast<long long>(blockIdx.z) * hq + blockIdx.y) * m + blockIdx.x;
  const unsigned short* from =
      q + blockIdx.z * q_stride_b + blockIdx.y * q_stride_h + blockIdx.x * q_stride_m;
  for (int i = threadIdx.x; i < 64; i += 32) copy[row * 64 + i] = from[i];
  if (threadIdx.x == 0) atomicAdd(count, 1);
}
