// Sum and maximum of each block's slice through warp shuffles and shared memory, with a grid-stride loop.
extern "C" __global__ void __launch_bounds__(256) block_reduce(const float* in, float* sums, int* maxima, int n) {
  __shared__ float partial[8];
  __shared__ int partial_max[8];
  float sum = 0.0f;
  int largest = -2147483647 - 1;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    sum += in[i];
    largest = max(largest, (int)in[i]);
  }
  for (int d = 16; d > 0; d /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, d);
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, d));
  }
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = sum;
    partial_max[threadIdx.x / 32] = largest;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0.0f;
    int top = partial_max[0];
    for (int w = 0; w < 8; ++w) {
      total += partial[w];
      top = max(top, partial_max[w]);
    }
    sums[blockIdx.x] = total;
    maxima[blockIdx.x] = top;
  }
}
