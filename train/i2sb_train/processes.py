"""The processes of one training run: alone, or those that `torchrun` started, each with a share of every batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from i2sb_rt.cli import report_failure
from i2sb_rt.errors import I2SBError, UsageError

# How long processes wait for one that scores, reads or writes alone.
PATIENCE = timedelta(hours=2)


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
        if self.count == 1:
            return number
        held = torch.tensor(number)
        self.share([held])
        return int(held.item())

    def meet(self) -> None:
        """Wait until every process has come here."""
        self.share_number(0)

    def led(self, work: Callable[[], int]) -> int:
        """Let the leading process alone do some work, and give every process its number.

        Whatever it raises ends them all: there with that error, elsewhere with a FollowingError.
        """
        number, error = 0, None
        if self.leads:
            try:
                number = work()
            except Exception as caught:
                error = caught
        if self.share_number(error is not None):
            raise error or FollowingError("the leading process has failed, and said why.")
        return self.share_number(number)

    def require_equal(self, number: int, what: str) -> None:
        """Raise UsageError, everywhere, unless every process has the same number of 63 bits."""
        differs = torch.tensor(self.share_number(number) != number, dtype=torch.int64)
        if self.sum(differs).item():
            raise UsageError(f"the processes of this run do not see the same {what}.")


class FollowingError(I2SBError):
    """Another process of the run has failed."""


def neighbours() -> int:
    """Tell how many processes of the run share this machine, as `torchrun` says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def processes(device: str = "auto", gpu: int | None = None) -> Iterator[Processes]:
    """Join the run that `torchrun` set up in the environment, or run alone; leave it at the end.

    device: "auto", "cpu", or "cuda", of which each process of a machine takes its own; gpu: the number of one, for a
    run of one process. Raises UsageError for a GPU that is not there. Tensors on a GPU are added up by NCCL, numbers of
    the CPU by Gloo, so that nothing waits for a GPU.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if gpu is not None and (kind != "cuda" or count > 1):
        raise UsageError("--gpu is for a run of one process on a GPU; torchrun gives each process its own.")
    place = torch.device(kind)
    if kind == "cuda":
        number = int(os.environ["LOCAL_RANK"]) if count > 1 else gpu or 0
        there = torch.cuda.device_count()
        if number >= there:
            raise UsageError(f"there is no GPU number {number} for this process: PyTorch finds {there}.")
        place = torch.device("cuda", number)
        torch.cuda.set_device(place)
    if count == 1:
        yield Processes(0, 1, place)
        return
    on_gpu = kind == "cuda"
    backend, bound = ("cpu:gloo,cuda:nccl", place) if on_gpu else ("gloo", None)
    dist.init_process_group(backend, timeout=PATIENCE, device_id=bound)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), place)
    except Exception as error:
        if on_gpu:  # perhaps of this process alone: leaving NCCL waits for the others, which wait for this one
            code = report_failure(error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # and torchrun ends the others
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()
