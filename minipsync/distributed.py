"""Several processes, one result: those that `torchrun` starts share the work through torch.distributed.

    torchrun --nproc-per-node 4 -m minipsync run promptsync --dataset sketch

Each process takes batches of its own (evaluation/evaluate.py, source/one_pass.py); only small things travel:
rows that were found, sums. Without torchrun every function here is that of a single process.
"""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

LONG = timedelta(days=7)                          # processes finish far apart; a dead one ends the run anyway


def start() -> torch.device:
    """Join the processes that torchrun started, if it did; the device that this process should use.

    With GPUs process k of a machine gets GPU k modulo their number, and "cuda" means this one from here on.
    """
    cuda = torch.cuda.is_available()
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ and not dist.is_initialized():
        # what travels lies in main memory, so gloo would do; nccl is there for who adds more
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=LONG)
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    elif world() > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return torch.device("cuda" if cuda else "cpu")


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 to world() - 1; 0 writes what is written once."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any) -> list:
    """`value` of every process, in the order of ranks; all wait for all. Any picklable object."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """What process 0 has; all wait for it."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
