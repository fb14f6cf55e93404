"""The fitting of a diffusion Schrodinger bridge: halves that train one network each, on what the other one makes."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2sb_rt.errors import UsageError
from i2sb_rt.networks.loading import build_network
from i2sb_train.checkpoint import checkpoint_path, prune
from i2sb_train.dsb.checkpoint import save_state
from i2sb_train.dsb.data import Ends
from i2sb_train.dsb.fitting import Cache, Pairs, Trajectories, as_drift, errors
from i2sb_train.dsb.process import DIRECTIONS, Direction, Drift, Process, Reference, opposite
from i2sb_train.dsb.recipe import DsbRecipe
from i2sb_train.loop import TrainingError, stop_on_signals
from i2sb_train.progress import Progress

# What is drawn, so that no two draws of a run share a seed.
_INIT, _START, _NOISE, _BATCH, _SHOWN = range(5)
_CHUNK = 1 << 22  # values of states that a network is asked for at once when trajectories are made


class _StoppedError(Exception):
    """A signal came while a network was asked for trajectories."""


@dataclass
class Side:
    """The network of one direction and the mean of its weights."""

    network: nn.Module
    ema: nn.Module

    @classmethod
    def new(cls, config: dict[str, Any], seed: int, device: torch.device) -> Side:
        """Make a network at its start, decided by the seed; UsageError for a configuration that cannot be built."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network, ema = build_network(config), build_network(config)
            except (TypeError, ValueError) as error:
                raise UsageError(f"[network] does not fit: {error}.") from error
        ema.load_state_dict(network.state_dict())
        return cls(network.to(device), ema.to(device).eval().requires_grad_(False))

    def average(self, decay: float) -> None:
        """Update the mean of the weights: ema <- decay ema + (1 - decay) weights."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)


@dataclass
class Fit:
    """What changes while fitting: both sides, the half that is trained, its optimiser, and the steps taken in it.

    half: counted from 0; even halves train the backward network. total: the steps of all halves.
    """

    sides: dict[Direction, Side]
    optimizer: torch.optim.Adam
    half: int = 0
    step: int = 0
    total: int = 0

    @property
    def direction(self) -> Direction:
        """The direction of the network that is trained."""
        return "forward" if self.half % 2 else "backward"


class Fitter:
    """Runs a recipe from a state onwards; `folder` gets the checkpoints."""

    def __init__(self, recipe: DsbRecipe, ends: Ends, folder: Path, device: torch.device) -> None:
        self.recipe, self.ends, self.folder, self.device = recipe, ends, folder, device
        rate = 1 / recipe.prior**2 if recipe.bridge.reference == "ou" else 0.0
        self.process = Process(recipe.bridge.gammas(), Reference(rate), device)
        sides: dict[Direction, Side] = {way: self._new_side(way, 0) for way in DIRECTIONS}
        self.fit = Fit(sides, self._new_optimizer(sides["backward"]))
        self._cache: tuple[tuple[int, int], Cache] | None = None
        self._stopping = False

    @property
    def halves(self) -> int:
        """The number of half-iterations."""
        return 2 * self.recipe.train.iterations

    @property
    def ended(self) -> bool:
        """Whether all halves are done."""
        return self.fit.half >= self.halves

    def run_half(self, progress: Progress) -> float | None:
        """Train to the end of the half; the mean loss of its last steps, or None where a signal ended it before.

        A checkpoint is written then, and every train.save_minutes.
        """
        fit, train, saved = self.fit, self.recipe.train, time.monotonic()
        steps, recent = self.recipe.steps_of(fit.half), []
        with stop_on_signals(self._signal), suppress(_StoppedError):
            while fit.step < steps and not self._stopping:
                recent.append(self.step())
                progress.step(fit.total, recent[-1])
                if time.monotonic() - saved > 60 * train.save_minutes:
                    self.save()
                    saved = time.monotonic()
        if fit.step < steps:
            self.save()
            return None
        return sum(recent[-100:]) / max(1, len(recent[-100:])) if recent else math.nan

    def next_half(self) -> None:
        """Go on to the next half; its network is made anew, or goes on where it was, with a new optimiser."""
        fit = self.fit
        fit.half, fit.step = fit.half + 1, 0
        if fit.half >= 2 and not self.ended and not self.recipe.train.warm_start:
            fit.sides[fit.direction] = self._new_side(fit.direction, fit.half)
        fit.optimizer = self._new_optimizer(fit.sides[fit.direction])
        self._cache = None

    def step(self) -> float:
        """Take one step of the half's network; return the loss. Raises TrainingError where that is not finite."""
        fit, train, recipe = self.fit, self.recipe.train, self.recipe
        side, steps = fit.sides[fit.direction], recipe.steps_of(fit.half)
        batch = self.cache().batch(train.batch, self._generator(_BATCH, fit.step))
        fall = 0.5 * (1 + math.cos(math.pi * fit.step / steps))
        for group in fit.optimizer.param_groups:
            group["lr"] = train.lr * (train.lr_end + (1 - train.lr_end) * fall)
        out = side.network(batch.x, self.process.network_times[batch.states])
        gamma = self.process.gammas_from(batch.states, fit.direction)
        loss = errors(out, batch, gamma, recipe.bridge.prediction).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(side.network.parameters(), train.clip)
        told, length = torch.stack([loss.detach(), norm]).tolist()  # one wait for the device a step
        if not math.isfinite(told + length):
            raise TrainingError(
                f"half {fit.half + 1}, step {fit.step}: the loss is {told}; nothing was saved of this "
                f"step. Resume with a lower train.lr."
            )
        fit.optimizer.step()
        fit.optimizer.zero_grad()
        side.average(min(train.ema, (1 + fit.step) / (10 + fit.step)))
        fit.step, fit.total = fit.step + 1, fit.total + 1
        return float(told)

    def cache(self) -> Cache:
        """Return what the current step draws from; made anew every train.refresh steps, the same for the same step."""
        fit = self.fit
        key = fit.half, fit.step // self.recipe.train.refresh
        if self._cache is None or self._cache[0] != key:
            self._cache = None  # two of them need not fit into memory
            self._cache = key, self._new_cache(key[1])
        return self._cache[1]

    def _new_cache(self, number: int) -> Cache:
        fit, count = self.fit, self.recipe.train.cache
        made = opposite(fit.direction)
        begins, ends = ("start", "end") if made == "forward" else ("end", "start")
        x = self._drawn(begins, count, [_START, fit.half, number])
        generator = self._generator(_NOISE, number)
        first = fit.half == 0
        if self.recipe.train.algorithm == "ipf":
            drift: Drift = (lambda x, _: self.process.reference.drift(x)) if first else self.drift(made)
            return Trajectories(self.process, drift, x, fit.direction, generator)
        if first:  # an independent coupling to begin with
            other = self._drawn(ends, count, [_START, fit.half, number, 1])
        else:
            other = self.process.end(self.drift(made), x, made, generator)
        return Pairs(self.process, *((x, other) if made == "forward" else (other, x)), fit.direction)

    def drift(self, direction: Direction) -> Drift:
        """Return the drift of a direction, by the mean of its network's weights."""
        network, kind = self.fit.sides[direction].ema, self.recipe.bridge.prediction

        def drift(x: Tensor, state: int) -> Tensor:
            if self._stopping:  # a cache of images takes minutes; it is made anew when the run goes on
                raise _StoppedError
            t = self.process.network_times[state]
            chunk = max(1, _CHUNK // x[0].numel())
            with torch.no_grad():
                out = torch.cat([network(part, t.expand(len(part))) for part in torch.split(x, chunk)])
            return as_drift(out, x, torch.tensor(self.process.gamma_from(state, direction)), kind)

        return drift

    def simulate(self, direction: Direction, x: Tensor, seed: int) -> list[Tensor]:
        """Run a direction from x [B, C, H, W] as a plan does; return its N + 1 states in the order of its steps."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.process.simulate(self.drift(direction), x, direction, generator)

    def carried(self, direction: Direction, x: Tensor, seed: int) -> Tensor:
        """Return the last state of `simulate`, without the memory of the others."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.process.end(self.drift(direction), x, direction, generator)

    def drawn(self, end: str, count: int, seed: int, held_out: bool = False) -> Tensor:
        """Draw states of an end that no training step has seen, [count, C, H, W]."""
        return torch.from_numpy(self.ends.draw(end, count, [self.recipe.train.seed, _SHOWN, seed], held_out)).to(
            self.device
        )

    def _drawn(self, end: str, count: int, seed: list[int]) -> Tensor:
        return torch.from_numpy(self.ends.draw(end, count, [self.recipe.train.seed, *seed])).to(self.device)

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        words = np.random.SeedSequence([self.recipe.train.seed, purpose, self.fit.half, number]).generate_state(2)
        return torch.Generator(self.device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def _new_side(self, direction: Direction, half: int) -> Side:
        seed = np.random.SeedSequence([self.recipe.train.seed, _INIT, half, direction == "forward"]).generate_state(1)
        return Side.new(self.recipe.whole_network, int(seed[0]), self.device)

    def _new_optimizer(self, side: Side) -> torch.optim.Adam:
        return torch.optim.Adam(side.network.parameters(), self.recipe.train.lr, betas=(0.9, 0.99), fused=True)

    def save(self) -> None:
        """Write a checkpoint of this moment and forget the oldest ones."""
        save_state(checkpoint_path(self.folder, self.fit.total), self.fit, self.recipe)
        prune(self.folder, self.recipe.train.keep)

    def _signal(self) -> None:
        self._stopping = True
