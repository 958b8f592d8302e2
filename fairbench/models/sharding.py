"""A backbone divided over the processes that share a job: each keeps a part of the decoder layers' frozen weights.

FSDP2 (`torch.distributed.fsdp.fully_shard`) gathers a layer's weights before it runs, forward and backward, and
lets them go afterwards. What is trained is left out of it and whole in every process, so that a step divides its
batch and adds up its gradients as it does without. All processes gather together: each must make the same passes
through the decoder in the same order, and one that has no example left makes them on a spare one (`idle`).
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Callable, Collection

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from fairbench.errors import FairbenchError


def everyone(device: torch.device) -> DeviceMesh:
    """Return all processes that share a job, over which weights are divided.

    Raises FairbenchError where there is one alone.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise FairbenchError(
            "--shard divides a backbone over the processes that share a job, and here is one",
            "start several, see docs/scale.md",
        )
    return init_device_mesh(device.type, (dist.get_world_size(),))


def in_turn(mesh: DeviceMesh | None, work: Callable[[], None]) -> None:
    """Load a checkpoint in one process of a machine after another, so that its memory holds one of them whole."""
    if mesh is None:
        work()
        return
    own = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
    for turn in range(dist.get_world_size()):  # no machine has more, and all must count alike
        if turn == own:
            work()
            if platform.libc_ver()[0] == "glibc":  # else it would keep what it no longer holds
                ctypes.CDLL(None).malloc_trim(0)
        dist.barrier()


def layers_of(decoder: nn.Module, depth: int) -> nn.ModuleList:
    """Return a decoder's layers: the outermost list of modules that is as long as the decoder is deep."""
    lists = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    layers = next((one for one in lists if len(one) == depth), None)
    if layers is None:
        raise FairbenchError(
            f"{type(decoder).__name__} cannot be sharded: it has no list of {depth} layers", "leave --shard out"
        )
    return layers


def shard(decoder: nn.Module, depth: int, trained: Collection[nn.Parameter], mesh: DeviceMesh) -> None:
    """Keep, of the weights of a decoder's layers but for those that are `trained`, this process's part.

    Layers go to the device one after another, so that it never holds them all whole. Raises FairbenchError for
    weights that are no floating-point numbers (quantised ones).
    """
    layers, whole = layers_of(decoder, depth), set(trained)
    odd = [name for name, p in layers.named_parameters() if not p.is_floating_point()]
    if odd:
        raise FairbenchError(
            f"{type(decoder).__name__} cannot be sharded: {odd[0]} is quantised", "leave --shard or `quantise` out"
        )
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # The decoder holds no shard of its own, but as the layers' common root it lets one be gathered while another
    # computes. It keeps its class, by which transformers knows what hidden states to return.
    kind = type(decoder)
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()))
    decoder.__class__ = kind


def idle(mesh: DeviceMesh | None, total: int, own: int, size: int) -> int:
    """Return how many passes this process makes for nothing beside its `own` ones, so that all make as many.

    `total` examples are shared as evenly as may be and computed by up to `size` at once.
    """
    return 0 if mesh is None else math.ceil(math.ceil(total / mesh.size()) / size) - own


def anywhere(mesh: DeviceMesh | None, here: Tensor) -> bool:
    """Return whether any of some booleans holds here, or in another process that must go on with this one."""
    flag = here.any()
    if mesh is not None:
        flag = flag.int()
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def local(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, without asking the others."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def out_of_memory(device: torch.device) -> FairbenchError:
    """Return the error of a process that ran out of memory while the others wait for it."""
    return FairbenchError(
        f"out of memory on {device}, where processes that share weights cannot halve their micro-batch one by one",
        "--micro-batch says how many examples each computes at once; the more processes, the less each holds",
    )
