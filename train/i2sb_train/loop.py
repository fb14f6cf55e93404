"""The training loop of a bridge: one recipe, one folder of checkpoints, one network, on one process or many."""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from i2sb_rt.errors import I2SBError, UsageError
from i2sb_rt.networks import UNet
from i2sb_train import checkpoint
from i2sb_train.checkpoint import State
from i2sb_train.data import Sample, Samples, batches, to_signal
from i2sb_train.degrade import damages
from i2sb_train.i2sb import Bridge, elements, errors
from i2sb_train.processes import ALONE, FollowingError, Processes, neighbours
from i2sb_train.progress import Progress
from i2sb_train.recipe import Recipe, Train
from i2sb_train.sources import Picture, Stored, find, split_holdout
from i2sb_train.validate import Score, centre, swap, trajectory, validate
from i2sb_train.watch import Watch

# A scale of fp16 that has fallen so far says that the gradient is not finite at any scale.
_LEAST_SCALE = 2.0**-14


class TrainingError(I2SBError):
    """Training that cannot go on; the message says what happened at which step."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a run, or for kind "paired" the pairs."""

    train: Sequence[Picture]
    held_out: Sequence[Picture]
    names: Sequence[str] = ()

    def fingerprint(self) -> int:
        """Make a number of 32 bits of the pictures' names: another for others, or in another order."""
        return zlib.crc32("\0".join(self.names).encode())

    @classmethod
    def read(cls, recipe: Recipe, folders: Sequence[Path], damaged: Sequence[Path] = ()) -> Pictures:
        """Find all pictures a recipe speaks of in the given folders, and decode as many as data.memory holds."""
        kept, held = split_holdout(find(recipe, folders, damaged), recipe.data.holdout)
        factor = recipe.degradation.factor
        memory = (recipe.data.memory << 20) // neighbours()
        names = [f"{place.path.name}:{place.member}" for places in kept for place in places]
        return cls(Stored(kept, factor, memory), Stored(held, factor), names)


def learning_rate(step: int, train: Train) -> float:
    """Give the rate of a step: a linear warm-up, a plateau, then half a cosine to lr * lr_end over `decay` steps.

    With lr_step, the plateau falls by lr_gamma every lr_step steps.
    """
    rate = train.lr * min(1.0, (step + 1) / train.warmup) if train.warmup else train.lr
    if train.lr_step:
        rate *= train.lr_gamma ** (step // train.lr_step)
    into = step - (train.steps - train.decay)
    if into < 0 or not train.decay:
        return rate
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (into + 1) / train.decay)))
    return rate * (train.lr_end + (1 - train.lr_end) * fall)


def new_state(recipe: Recipe, device: torch.device) -> State:
    """Make a network at its start, decided by the recipe's seed, with its EMA and optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        try:
            network = UNet(**recipe.network)
        except (TypeError, ValueError) as error:
            raise UsageError(f"[network] does not fit UNet: {error}.") from error
    dtype = torch.float64 if recipe.train.precision == "fp64" else torch.float32
    network = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.train.lr, betas=(0.9, 0.99), weight_decay=recipe.train.weight_decay, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.precision == "fp16")
    return State(network, ema, optimizer, scaler)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bf16 or fp16 where that is asked for, or, with "auto", in bf16 where the device does so natively."""
    if precision == "auto":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if device.type == "cuda" or native else "fp32"
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, halves[precision]) if precision in halves else nullcontext()


class Trainer:
    """Runs a recipe from a state onwards; the leading process writes checkpoints into `folder`."""

    def __init__(
        self, recipe: Recipe, pictures: Pictures, folder: Path, processes: Processes = ALONE, watch: Watch | None = None
    ) -> None:
        if recipe.train.batch % processes.count:
            raise UsageError(f"train.batch {recipe.train.batch} cannot be shared by {processes.count} processes alike.")
        self.recipe = recipe
        self.folder = folder
        self.processes = processes
        self.device = processes.device
        self.watch = watch or Watch()
        self.bridge = Bridge.of(recipe.bridge).to(self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # crops are all of one size
            if recipe.train.precision == "fp32":
                torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        self.state = new_state(recipe, self.device)
        self.samples = Samples(recipe, pictures.train)
        crop, multiple, factor = recipe.validation.crop, self.state.network.multiple, recipe.degradation.factor
        assert isinstance(multiple, int)
        self.held_out = [centre(p, crop, multiple, factor) for p in pictures.held_out] if processes.leads else []
        self.stopping = False
        self._signalled = False

    @cached_property
    def _parallel(self) -> nn.Module:
        """The network as a step calls it: compiled where asked for, its gradients averaged over the processes.

        The averaging overlaps with the backward pass. Made at the first step, when the weights are in place.
        """
        network = self.state.network
        if self.recipe.train.compile:
            network = torch.compile(network)  # type: ignore[assignment]
        if self.processes.count == 1:
            return network
        places = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, places, gradient_as_bucket_view=True)

    def run(self, progress: Progress) -> bool:
        """Train up to the recipe's steps; False if a signal ended the run before (its checkpoint is written)."""
        train, state, processes = self.recipe.train, self.state, self.processes
        saved = time.monotonic()
        pin = self.device.type == "cuda"
        with stop_on_signals(self._signal):
            loader = batches(self.samples, state.step, train.steps, processes.rank, processes.count, pin)
            while state.step < train.steps and not self.stopping:
                batch = self._next(loader, progress)
                loss = self.step(batch)
                progress.step(state.step, loss)
                if not processes.leads:
                    continue
                self.watch.step(state.step, loss, learning_rate(state.step - 1, train))
                every = self.recipe.validation.every
                if every and (state.step % every == 0 or state.step == train.steps) and self.held_out:
                    self._score(progress)
                if time.monotonic() - saved > 60 * train.save_minutes:
                    self.save()
                    saved = time.monotonic()
        self._save_together()
        if state.step == train.steps:
            return True
        progress.line(f"stopped after step {state.step}; --resume goes on from there.")
        return False

    def _next(self, loader: Iterator[Sample], progress: Progress) -> Sample:
        """Return the next batch; where one process has none, all save what they have and fail."""
        error: Exception | None = None
        batch: Sample | None = None
        began = time.monotonic()
        try:
            batch = next(loader)
        except Exception as caught:
            error = caught
        progress.waited(time.monotonic() - began)
        failures = torch.tensor(error is not None, dtype=torch.int64)
        if self.processes.sum(failures).item():
            self._save_together()
            raise error or FollowingError("another process had no batch to train on, and said why.")
        assert batch is not None
        return batch

    def _save_together(self) -> None:
        """Let the leading process save while the others wait: a launcher ends them all as soon as one ends."""
        if self.processes.leads:
            self.save()
        self.processes.meet()

    def _score(self, progress: Progress) -> None:
        scores = self.scores()
        progress.line(f"step {self.state.step}: held out, " + ", ".join(str(score) for score in scores))
        self.watch.scores(self.state.step, scores)
        self._show()

    def step(self, batch: Sample) -> float:
        """Take one optimiser step on this process's share of a batch; return the mean loss over all of it.

        The loss is the mean squared error of the predicted target (arXiv 2302.05872, eq. 12), of the hole alone where
        there is one. Raises TrainingError, on every process, where it is not finite; nothing has changed then.
        """
        train, state, processes = self.recipe.train, self.state, self.processes
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, train)
        counts = elements(batch.clean, batch.mask).to(self.device, non_blocking=True)
        count = processes.sum(counts.sum())
        found = torch.zeros(2, dtype=torch.float64, device=self.device)
        whole = len(batch.clean)
        for first in range(0, whole, train.micro or whole):
            part = batch.part(first, first + (train.micro or whole))
            last = first + len(part.clean) == whole
            with nullcontext() if last or processes.count == 1 else self._parallel.no_sync():  # type: ignore[operator]
                sums = self._errors(part)
                loss = sums.sum() / count
                # What the processes have is averaged, so each is to give its part of the sum that many times.
                state.scaler.scale(loss * processes.count).backward()  # type: ignore[no-untyped-call]
            self.watch.errors(part.step, sums.detach() / counts[first : first + len(part.clean)])
            found[0] += loss.detach()
        found[1] = self._signalled
        processes.sum(found)
        state.scaler.unscale_(state.optimizer)
        clipped = nn.utils.clip_grad_norm_(state.network.parameters(), train.clip)
        total: float
        total, signals, norm = torch.cat([found, clipped.double()[None]]).tolist()  # one wait for the device a step
        self._check(total, norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        if math.isfinite(norm):
            self._average()
        state.step += 1
        self.stopping = signals > 0
        return total

    def _check(self, loss: float, norm: float) -> None:
        """Refuse what is not finite; but fp16 lowers its scale first and leaves the step out."""
        scaler = self.state.scaler
        overflow = scaler.is_enabled() and scaler.get_scale() > _LEAST_SCALE
        if not math.isfinite(loss) or not (math.isfinite(norm) or overflow):
            raise TrainingError(
                f"step {self.state.step}: the loss is {loss} and the gradient's norm {norm}; nothing was saved of this "
                f"step. Resume with a lower train.lr."
            )

    def _errors(self, batch: Sample) -> Tensor:
        """Compute the sum of squared errors of each sample's predicted target, [B]."""
        dtype = next(self.state.network.parameters()).dtype
        clean, given, cond, z, mask = (
            None if tensor is None else tensor.to(self.device, non_blocking=True)
            for tensor in (batch.clean, batch.x1, batch.cond, batch.z, batch.mask)
        )
        assert clean is not None
        assert given is not None
        x0, x1 = to_signal(clean).to(dtype), to_signal(given).to(dtype)
        steps = batch.step.to(self.device, non_blocking=True)
        x = self.bridge.point(x0, x1, steps, None if z is None else z.to(dtype))
        if mask is not None:
            x = self.bridge.begun(x, x1, steps)
        seen = self.bridge.seen(x, x1 if cond is None else to_signal(cond).to(dtype), mask)
        with autocast(self.recipe.train.precision, self.device):
            out = self._parallel(seen.contiguous(memory_format=torch.channels_last), self.bridge.times[steps].to(x))
        return errors(out.to(dtype), self.bridge.target(x, x0, steps), mask)

    def _average(self) -> None:
        """Update the mean of the weights: ema <- d ema + (1 - d) weights, d = train.ema, lower in the first steps."""
        decay = min(self.recipe.train.ema, (1 + self.state.step) / (10 + self.state.step))
        with torch.no_grad():
            names, parameters = zip(*self.state.network.named_parameters(), strict=True)
            torch._foreach_lerp_([self.state.ema[name] for name in names], list(parameters), 1 - decay)

    @contextmanager
    def _mean(self) -> Iterator[nn.Module]:
        """Lend the network with the mean of its weights in place of them."""
        swap(self.state.network, self.state.ema)
        try:
            with autocast(self.recipe.train.precision, self.device):
                yield self.state.network
        finally:
            swap(self.state.network, self.state.ema)

    def scores(self) -> list[Score]:
        """Score the EMA weights on the held-out pictures, once a kind of damage."""
        trials = damages(self.recipe.degradation, self.recipe.validation.qualities)
        with self._mean() as network:
            return validate(network, self.bridge, self.held_out, trials, self.device)

    def _show(self) -> None:
        """Let the first held-out picture be seen on its way, once a kind of damage."""
        if self.watch.writer is None:
            return
        with self._mean() as network:
            for name, damage in damages(self.recipe.degradation, self.recipe.validation.qualities).items():
                shown = trajectory(network, self.recipe, self.bridge, self.held_out[0], damage, self.device)
                self.watch.trajectory(self.state.step, name, shown)

    def save(self) -> None:
        """Write this step's checkpoint and forget the oldest ones."""
        path = checkpoint.checkpoint_path(self.folder, self.state.step)
        checkpoint.save_state(path, self.state, self.recipe)
        checkpoint.prune(self.folder, self.recipe.train.keep)

    def _signal(self) -> None:
        self._signalled = True


class stop_on_signals:
    """While active, the first SIGINT or SIGTERM asks for a stop after the current step; a second ends the process.

    Under torchrun only its SIGKILL does that, when its time to stop is over.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        def handler(signum: int, _frame: FrameType | None) -> None:
            if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun repeats what it and its processes were sent at once
                signal.signal(signum, signal.SIG_DFL)
            self.stop()

        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.before[signum] = signal.signal(signum, handler)
        except ValueError:  # Not the main thread: signals stay with the program that runs us.
            self.before.clear()

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
