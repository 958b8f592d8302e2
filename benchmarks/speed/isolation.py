"""What it costs to see that a job left the frozen weights as they were: one checksum of all of them.

    python benchmarks/speed/isolation.py [--layers 28] [--width 3584] [--dtype bfloat16]

Random weights in the shapes of a Qwen2.5-VL-7B decoder stand for the frozen part; every job is followed by one such
reading, and the first with a backbone is also preceded by one.
"""

from __future__ import annotations

import argparse
import time

import torch

from fairbench.training.device import device_name
from fairbench.training.isolation import checksum


def main() -> None:
    """Time three readings and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, dtype = options.width, getattr(torch, options.dtype)
    shapes = [(152_064, width), *[(width, width), (width, width), (width, 512), (width, 512)] * options.layers]
    shapes += [(width, 18_944)] * 3 * options.layers
    weights = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    count, size = sum(w.numel() for w in weights), sum(w.numel() * w.element_size() for w in weights)
    for _ in range(3):
        start = time.perf_counter()
        total = torch.stack([checksum(weight) for weight in weights])
        total.tolist()  # waits for the device
        print(f"{count / 1e9:.2f}e9 numbers, {size / 2**30:.1f} GiB, on {device_name(device)}: ", end="")
        print(f"{time.perf_counter() - start:.3f} s")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.stack([checksum(weight) for weight in weights])
        print(f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f} MiB beside the weights")


if __name__ == "__main__":
    main()
