"""Times torch's scaled_dot_product_attention, the yardstick of `sagejit bench`.

usage: sdpa.py [--backend flash|cudnn] [--dtype f16|bf16] [--shapes b,h,n,d[,causal] ...]
One line per shape: median ms over 7 rounds and TFLOPS = 4 b h n n d / t (halved when causal). `flash` is
FlashAttention-2, `cudnn` NVIDIA's own kernel.
"""
import argparse
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def time_shape(backend, dtype, b, h, n, d, causal):
    q, k, v = (torch.randn(b, h, n, d, device="cuda", dtype=DTYPES[dtype]) for _ in range(3))
    flops = 4.0 * b * h * n * n * d * (0.5 if causal else 1.0)
    repeats = max(3, min(200, int(4e13 / flops)))
    samples = []
    with sdpa_kernel(BACKENDS[backend]):
        for _ in range(3):
            torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        for _ in range(7):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(repeats):
                torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            stop.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(stop) / repeats)
    ms = statistics.median(samples)
    print(f"{b:>2} {h:>3} {n:>6} d={d:<3} {'causal' if causal else 'full':6} {ms:8.3f} ms "
          f"{flops / ms * 1e-9:7.1f} TFLOPS  SDPA {backend} {dtype}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="flash")
    parser.add_argument("--dtype", choices=DTYPES, default="f16")
    parser.add_argument("--shapes", nargs="+", default=["4,32,4096,128"])
    options = parser.parse_args()
    for text in options.shapes:
        parts = text.split(",")
        b, h, n, d = (int(part) for part in parts[:4])
        time_shape(options.backend, options.dtype, b, h, n, d, len(parts) > 4)


if __name__ == "__main__":
    main()
