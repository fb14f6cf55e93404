"""The training loop of a bridge: one recipe, one folder of checkpoints, one network."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2sb_rt.errors import I2SBError, UsageError
from i2sb_rt.networks import UNet
from i2sb_train import checkpoint, data
from i2sb_train.checkpoint import State
from i2sb_train.degrade import damages
from i2sb_train.i2sb import Bridge, error_of
from i2sb_train.progress import Progress
from i2sb_train.recipe import Recipe, Train
from i2sb_train.validate import centre, swap, validate

# Independent streams of random numbers: the steps' noise must not repeat the data's.
_STEP_STREAM = 0x5EED


class TrainingError(I2SBError):
    """Training that cannot go on; the message says what happened at which step."""


@dataclass(frozen=True)
class Pictures:
    """The clean pictures of a run, uint8 RGB."""

    train: list[NDArray[np.uint8]]
    held_out: list[NDArray[np.uint8]]

    @classmethod
    def read(cls, recipe: Recipe, folders: Sequence[Path]) -> Pictures:
        """Read all pictures a recipe speaks of from the given folders."""
        kept, held = data.split_holdout(data.list_pictures(folders), recipe.data.holdout)
        return cls([data.read_picture(p) for p in kept], [data.read_picture(p) for p in held])


def learning_rate(step: int, train: Train) -> float:
    """Give the rate of a step: a linear warm-up, a plateau, then half a cosine to lr * lr_end over `decay` steps."""
    warm = min(1.0, (step + 1) / train.warmup) if train.warmup else 1.0
    into = step - (train.steps - train.decay)
    if into < 0 or not train.decay:
        return train.lr * warm
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (into + 1) / train.decay)))
    return train.lr * warm * (train.lr_end + (1 - train.lr_end) * fall)


def new_state(recipe: Recipe, device: torch.device) -> State:
    """Make a network at its start, decided by the recipe's seed, with its EMA and optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        try:
            network = UNet(**recipe.network)
        except (TypeError, ValueError) as error:
            raise UsageError(f"[network] does not fit UNet: {error}.") from error
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.train.lr, betas=(0.9, 0.99), weight_decay=recipe.train.weight_decay, fused=True
    )
    return State(network, ema, optimizer)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """bf16 autocast where it is asked for, or, with "auto", where the device computes bf16 natively; else nothing."""
    if precision == "auto":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if device.type == "cuda" or native else "fp32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class Trainer:
    """Runs a recipe from a state onwards; writes checkpoints into `folder` and speaks through `progress`."""

    def __init__(self, recipe: Recipe, pictures: Pictures, folder: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.folder = folder
        self.device = device
        self.bridge = Bridge.of(recipe.bridge)
        self.state = new_state(recipe, device)
        self.pairs = data.Pairs(recipe, pictures.train)
        crop, multiple = recipe.validation.crop, self.state.network.multiple
        assert isinstance(multiple, int)
        self.held_out = [centre(p, crop, multiple) for p in pictures.held_out]
        self.stopping = False

    def run(self, progress: Progress) -> bool:
        """Train up to the recipe's steps; False if a signal ended the run before (its checkpoint is written)."""
        train, state = self.recipe.train, self.state
        saved = time.monotonic()
        with _stop_on_signals(self._stop):
            for batch in data.batches(self.pairs, state.step, train.steps):
                loss = self.step(*batch)
                progress.step(state.step, loss)
                every = self.recipe.validation.every
                if every and (state.step % every == 0 or state.step == train.steps) and self.held_out:
                    progress.line(f"step {state.step}: held out, " + ", ".join(self.scores()))
                if self.stopping or time.monotonic() - saved > 60 * train.save_minutes:
                    self.save()
                    saved = time.monotonic()
                if self.stopping:
                    progress.line(f"stopped after step {state.step}; --resume goes on from there.")
                    return False
        self.save()
        return True

    def step(self, clean: Tensor, damaged: Tensor, mask: Tensor | None = None) -> float:
        """Take one optimiser step on a batch of uint8 pairs and return its loss; TrainingError if it is not finite.

        mask: bool [B, 1, H, W], True in the holes of inpainting, which are filled with noise first.
        """
        train, state, bridge = self.recipe.train, self.state, self.bridge
        generator = torch.Generator().manual_seed(_mix(train.seed, state.step))
        batch = len(clean)
        steps = bridge.draw_steps(batch, train.last_step, generator)
        z = torch.randn(clean.shape, generator=generator)
        tensors = [clean, damaged, steps, z]
        if mask is not None:
            tensors += [mask, torch.randn(clean.shape, generator=generator)]
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, train)
        total = 0.0
        for part in torch.split(torch.arange(batch), train.micro or batch):
            share = len(part) / batch if mask is None else mask[part].sum().item() / mask.sum().item()
            loss = self._loss(*(tensor[part] for tensor in tensors)) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), train.clip)
        if not (math.isfinite(total) and torch.isfinite(norm)):
            raise TrainingError(
                f"step {state.step}: the loss is {total} and the gradient's norm {norm.item()}; nothing was saved of "
                f"this step. Resume with a lower train.lr."
            )
        state.optimizer.step()
        state.optimizer.zero_grad()
        self._average()
        state.step += 1
        return total

    def _loss(
        self,
        clean: Tensor,
        damaged: Tensor,
        steps: Tensor,
        z: Tensor,
        mask: Tensor | None = None,
        fill: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean squared error of the predicted target (arXiv 2302.05872, eq. 12); `fill` is for the hole."""
        x0, x1 = data.to_signal(clean.to(self.device)), data.to_signal(damaged.to(self.device))
        if mask is not None and fill is not None:
            mask = mask.to(self.device)
            x1 = torch.where(mask, fill.to(self.device), x1)
        x = self.bridge.point(x0, x1, steps, z.to(self.device))
        if mask is not None:
            x = self.bridge.begun(x, x1, steps)
        seen = self.bridge.seen(x, x1).contiguous(memory_format=torch.channels_last)
        with autocast(self.recipe.train.precision, self.device):
            out = self.state.network(seen, self.bridge.times[steps].to(self.device))
        return error_of(out.float(), self.bridge.target(x, x0, steps), mask)

    def _average(self) -> None:
        """Update the mean of the weights: ema <- d ema + (1 - d) weights, d = train.ema, lower in the first steps."""
        decay = min(self.recipe.train.ema, (1 + self.state.step) / (10 + self.state.step))
        with torch.no_grad():
            for name, parameter in self.state.network.named_parameters():
                self.state.ema[name].lerp_(parameter.detach(), 1 - decay)

    def scores(self) -> list[str]:
        """Score the EMA weights, one text a kind of damage."""
        swap(self.state.network, self.state.ema)
        try:
            trials = damages(self.recipe.degradation, self.recipe.validation.qualities)
            with autocast(self.recipe.train.precision, self.device):
                scores = validate(self.state.network, self.bridge, self.held_out, trials, self.device)
        finally:
            swap(self.state.network, self.state.ema)
        return [str(score) for score in scores]

    def save(self) -> None:
        """Write this step's checkpoint and forget the oldest ones."""
        path = checkpoint.checkpoint_path(self.folder, self.state.step)
        checkpoint.save_state(path, self.state, self.recipe)
        checkpoint.prune(self.folder, self.recipe.train.keep)

    def _stop(self) -> None:
        self.stopping = True


def _mix(seed: int, step: int) -> int:
    """Make one 63-bit seed for the draws of a step."""
    words = np.random.SeedSequence([seed, step, _STEP_STREAM]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


class _stop_on_signals:
    """While active, SIGINT and SIGTERM ask for a stop after the current step instead of killing the run."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        def handler(_signum: int, _frame: FrameType | None) -> None:
            self.stop()

        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.before[signum] = signal.signal(signum, handler)
        except ValueError:  # Not the main thread: signals stay with the program that runs us.
            self.before.clear()

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
