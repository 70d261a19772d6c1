"""Times cold compilation by stage and back end, each compilation a process of its own.

usage: compile_times.py [-n 9] [--sagejit build/release/bin/sagejit] [--target sm_90a] [--check] [FILE SELECT]
Medians of n, in ms, of sage2_8_8_fast_thread at d = 128 unless told otherwise; back ends take turns, so that what
else the machine does meets all of them. Stages side by side (kernels are assembled beside one another) do not
add up. The ratios:
  printed PTX to cubin / ptxas alone    generating, printing and assembling, over ptxas with the same PTX of all
                                        kernels side by side: at most 1.15
  LLVM to PTX / NVRTC to PTX            front ends: at most 0.5
--check: exit 1 if one is beyond that. Exit 77: a back end or tool is not here. A shared machine tells little: figures hold where nothing else runs.
"""
import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = ("ptx", "llvm", "cuda")
BACK_END = "PTX, assemble"  # what --times calls all behind the kernel IR, with --emit ptx the PTX alone
MOST_OVER_PTXAS, MOST_OVER_NVRTC = 1.15, 0.5


def compile_command(options, backend, emit, output):
    return [options.sagejit, "compile", options.file, "--target", options.target, "--select", options.select,
            "--no-cache", "--times", "--backend", backend, "--emit", emit, "-o", str(output)]


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(f"{' '.join(command)}\n{result.stderr}", file=sys.stderr)
        sys.exit(77 if "was not found" in result.stderr else 2)
    return result.stderr


def stages(options, backend, emit, folder):
    """Milliseconds of each stage, by its name."""
    text = run(compile_command(options, backend, emit, folder / f"kernel.{emit}"))
    return {name.strip(): float(ms) for name, ms in re.findall(r"^(.*\S)\s+([0-9.]+)$", text, re.M)}


def ptxas_alone(options, folder):
    """Milliseconds for all kernels of the printed PTX, side by side as sagejit runs them."""
    run(compile_command(options, "ptx", "ptx", folder / "alone.ptx"))
    start = time.perf_counter()
    processes = [subprocess.Popen([options.ptxas, "--verbose", f"--gpu-name={options.target}", str(file),
                                   "--output-file", str(file.with_suffix(".cubin"))], stderr=subprocess.DEVNULL)
                 for file in sorted(folder.glob("alone.*.ptx"))]
    if any([process.wait() for process in processes]) or not processes:
        sys.exit("ptxas refuses the printed PTX")
    return (time.perf_counter() - start) * 1000


def medians(samples):
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def measure(options):
    to_cubin, to_ptx = {b: [] for b in BACKENDS}, {b: [] for b in BACKENDS}
    alone = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for _ in range(options.n):
            for backend in BACKENDS:
                to_cubin[backend].append(stages(options, backend, "cubin", folder))
                to_ptx[backend].append(stages(options, backend, "ptx", folder))
            alone.append(ptxas_alone(options, folder))
    return ({b: medians(s) for b, s in to_cubin.items()}, {b: medians(s) for b, s in to_ptx.items()},
            statistics.median(alone))


def print_table(title, by_backend):
    names = list(dict.fromkeys(name for times in by_backend.values() for name in times))
    print(f"| {title}, ms | " + " | ".join(BACKENDS) + " |\n|---|" + "---|" * len(BACKENDS))
    for name in names:
        cells = [f"{by_backend[b][name]:.1f}" if name in by_backend[b] else "-" for b in BACKENDS]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default=str(ROOT / "specs/variants/sage2_8_8.attn"), metavar="FILE")
    parser.add_argument("select", nargs="?", default="sage2_8_8_fast_thread[head_dim=128, mask=none]",
                        metavar="SELECT")
    parser.add_argument("-n", type=int, default=9, help="samples (default 9)")
    parser.add_argument("--target", default="sm_90a")
    parser.add_argument("--sagejit", default=str(ROOT / "build/release/bin/sagejit"))
    parser.add_argument("--ptxas", default="ptxas")
    parser.add_argument("--check", action="store_true", help="exit 1 if a ratio is beyond its limit")
    options = parser.parse_args()
    to_cubin, to_ptx, alone = measure(options)
    print_table("text to cubin", to_cubin)
    print_table("text to PTX", to_ptx)
    printed = to_cubin["ptx"]
    ratios = (("printed PTX to cubin / ptxas alone", printed["generate"] + printed[BACK_END], alone, MOST_OVER_PTXAS),
              ("LLVM to PTX / NVRTC to PTX", to_ptx["llvm"][BACK_END], to_ptx["cuda"][BACK_END], MOST_OVER_NVRTC))
    print("| ratio | ms | over ms | ratio | at most |\n|---|---|---|---|---|")
    for name, ms, over, most in ratios:
        print(f"| {name} | {ms:.1f} | {over:.1f} | {ms / over:.2f} | {most} |")
    return int(options.check and any(ms > most * over for _, ms, over, most in ratios))


if __name__ == "__main__":
    sys.exit(main())
