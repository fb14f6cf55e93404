"""What a training run tells: a bar with the remaining time on a terminal, else one plain line every so many steps."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A context manager; `step` after every training step, `line` for anything that shall stay readable.

    All but the leading process of a run are `quiet`.
    """

    def __init__(self, first: int, last: int, every: int, quiet: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.first, self.last, self.every = first, last, every
        self.began = time.monotonic()
        self.losses: list[float] = []
        self.waits = 0.0
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=last, completed=first)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.bar.stop()

    def waited(self, seconds: float) -> None:
        """Count time in which there was no batch to train on."""
        self.waits += seconds

    def step(self, done: int, loss: float) -> None:
        """Count a step; every `every` steps tell the mean loss, the speed, the waiting for data and the time left."""
        self.losses.append(loss)
        if done % self.every and done != self.last:
            self.bar.update(self.task, completed=done)
            return
        spent = time.monotonic() - self.began
        rate, waiting = (done - self.first) / spent, f"{self.waits / spent:.1%} waiting for data"
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        self.bar.update(self.task, completed=done, description=f"loss {mean:.4f}, {rate:.2f} steps/s, {waiting}")
        if not self.console.is_terminal:
            left = round((self.last - done) / rate / 60)
            self.line(f"step {done} of {self.last}: loss {mean:.4f}, {rate:.2f} steps/s, {waiting}, {left} min left")

    def line(self, text: str) -> None:
        """Print one line of text above the bar, with the time of day."""
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)
        self.console.file.flush()
