// A loop whose trip count differs per lane, with an early return, a switch and a nested branch inside it.
extern "C" __global__ void collatz(const unsigned* in, unsigned* steps, unsigned* kinds, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned x = in[i], count = 0, kind = 0;
  while (x != 1) {
    if (x % 2 == 0) {
      x /= 2;
    } else {
      if (x % 3 == 0) ++kind;
      x = 3 * x + 1;
    }
    if (++count == 1000) return;
  }
  switch (in[i] % 8) {
    case 0: kind += 100; break;
    case 1: kind *= 3; break;
    case 2: kind ^= 0x55; break;
    case 3: kind = count; break;
    case 4: kind -= 7; break;
    case 5: kind |= 0x1000; break;
    case 6: kind = ~kind; break;
    default: kind = __brev(kind); break;
  }
  steps[i] = count;
  kinds[i] = kind;
}
