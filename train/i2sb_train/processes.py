"""The processes of one training run: alone, or those that `torchrun` started, each with a share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from i2sb_rt.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """One process among those of the run, and where it computes. If it is alone, nothing is communicated."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the one that speaks, scores and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; the same bits everywhere."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the leading one's tensors, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share_number(self, number: int) -> int:
        """Give every process the leading one's number."""
        held = torch.tensor(number, device=self.device)
        self.share([held])
        return int(held.item())


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the run that `torchrun` set up in the environment, or run alone; leave it at the end.

    device: "auto", "cpu", or "cuda", of which each process of a machine takes its own. Raises UsageError where there
    are more processes than GPUs.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, torch.device(kind))
        return
    place = torch.device(kind)
    if kind == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU of its own; there are {torch.cuda.device_count()}."
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
