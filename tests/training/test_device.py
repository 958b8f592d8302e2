"""What a process does with memory and with random numbers, apart from any training."""

import platform
import resource

import pytest
import torch

from fairbench.training.device import keep_freed_memory
from fairbench.training.run import reseed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_memory_that_a_tensor_freed_serves_the_next_one():
    keep_freed_memory()
    torch.ones(1 << 22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        torch.ones(1 << 22)  # 16 MiB, 4,096 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20 * 4_096


def test_reseeding_draws_what_torch_draws():
    torch.manual_seed(5)
    expected = torch.rand(3)
    reseed(torch.device("cpu"), 5)
    assert torch.equal(torch.rand(3), expected)
