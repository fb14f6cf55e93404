"""What can be watched of a run in TensorBoard: losses by noise level, the rate, held-out PSNR, trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2sb_rt.errors import UsageError
from i2sb_train.sources import Pixels
from i2sb_train.validate import Score

LEVELS = 10
"""How many ranges of bridge steps a loss is told for; level 0 holds those nearest to the clean picture."""


class Watch:
    """Takes what a trainer tells, and writes means of it every `every` steps; without a writer, nothing."""

    def __init__(self, writer: Any = None, interval: int = 1, every: int = 1) -> None:
        self.writer = writer
        self.interval = interval
        self.every = every
        self.losses: list[float] = []
        self.sums = torch.zeros(2, LEVELS, dtype=torch.float64)

    def errors(self, steps: Tensor, values: Tensor) -> None:
        """Take the mean squared errors of samples, [B], and the bridge steps they were trained at, int64 [B]."""
        if self.writer is not None:
            self.sums = self.sums.to(values.device)  # where it stays: nothing here waits for the device
            levels = (steps * LEVELS // self.interval).to(values.device, non_blocking=True)
            told = values.double()
            self.sums.index_add_(1, levels, torch.stack([told, torch.ones_like(told)]))

    def step(self, done: int, loss: float, rate: float) -> None:
        """Take the loss and the learning rate of a step."""
        if self.writer is None:
            return
        self.losses.append(loss)
        if done % self.every:
            return
        self.writer.add_scalar("loss", sum(self.losses) / len(self.losses), done)
        self.writer.add_scalar("learning rate", rate, done)
        for level, (total, count) in enumerate(self.sums.T.tolist()):
            if count:
                self.writer.add_scalar(f"loss by noise level/{level}", total / count, done)
        self.losses.clear()
        self.sums.zero_()

    def scores(self, done: int, scores: Sequence[Score]) -> None:
        """Take the held-out PSNR after so many steps."""
        for score in scores if self.writer is not None else ():
            self.writer.add_scalar(f"held-out PSNR in dB/{score.damage}", score.after, done)
            self.writer.add_scalar(f"held-out gain in dB/{score.damage}", score.after - score.before, done)

    def trajectory(self, done: int, damage: str, picture: Pixels) -> None:
        """Take a picture of trajectories, uint8 [H, W, 3]."""
        if self.writer is not None:
            self.writer.add_image(f"trajectory/{damage}", picture, done, dataformats="HWC")
            self.writer.flush()


def watching(kind: str, folder: Path, name: str, interval: int, every: int) -> Watch:
    """Begin to write into `folder` as `kind` says: none, tensorboard or wandb.

    UsageError where its package is missing.
    "wandb" sends what TensorBoard is told to Weights & Biases; its key comes from the environment or `wandb login`.
    """
    if kind == "none":
        return Watch()
    try:
        if kind == "wandb":
            import wandb  # type: ignore[import-not-found, unused-ignore]

            wandb.init(project="i2sb-rt", name=name, dir=str(folder), sync_tensorboard=True)
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"--log-writer {kind} needs the package {error.name}, which is not installed.") from error
    return Watch(SummaryWriter(folder / "tensorboard"), interval, every)
