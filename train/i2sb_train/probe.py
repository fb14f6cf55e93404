"""`--dry-run`: what a run will need, by its plan and by twenty of its steps."""

from __future__ import annotations

import resource
import time
import warnings

import torch
from torch.utils.flop_counter import FlopCounterMode

from i2sb_train.data import batches
from i2sb_train.loop import Trainer

_STEPS = 20
_WARMUP = 3
_GIB = 2.0**30


def probe(trainer: Trainer) -> int:
    """Print parameters, FLOP and memory of a step, and after 20 steps how many fit into an hour; returns 0.

    The speed is the median step's, all processes at work; memory is the peak of this process, of its GPU where there is
    one. The trainer's state is changed, and nothing written.
    """
    recipe, state, here = trainer.recipe, trainer.state, trainer.processes
    weights = list(state.network.parameters())
    count = sum(p.numel() for p in weights)
    kept = sum(p.numel() * p.element_size() for p in weights) * 5  # weights, gradients, mean, two moments
    on_gpu = here.device.type == "cuda"
    loader = iter(batches(trainer.samples, 0, _STEPS + _WARMUP, here.rank, here.count, pin=on_gpu))
    counter = FlopCounterMode(display=False)
    # A network first called while counting would never be compiled; of the counter's hooks torch.compile warns.
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings(action="ignore"), counter:
        trainer.step(next(loader))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(here.device)
    seconds, waits = [], []
    for _ in range(_STEPS + _WARMUP - 1):
        began = time.monotonic()
        batch = next(loader)
        waits.append(time.monotonic() - began)
        trainer.step(batch)
        seconds.append(time.monotonic() - began)
    seconds, waits = seconds[_WARMUP - 1 :], waits[_WARMUP - 1 :]
    median = sorted(seconds)[_STEPS // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    if on_gpu:
        peak = torch.cuda.max_memory_allocated(here.device)
    hours = recipe.train.steps * median / 3600
    flop = counter.get_total_flops() * here.count
    if here.leads:
        pictures = f"{len(trainer.samples.pictures)} pictures" if trainer.samples.pictures else "dead leaves alone"
        print(
            f"model        {recipe.model.name}: {recipe.model.task}, {recipe.degradation.kind}\n"
            f"data         {pictures}, {len(trainer.held_out)} held out\n"
            f"parameters   {count:,} ({count * 2 / 2**20:.2f} MiB as a model in fp16)\n"
            f"batch        {recipe.train.batch} x {recipe.data.crop} x {recipe.data.crop}, {here.count} process(es), "
            f"{here.device}\n"
            f"FLOP         {flop:.3g} a step, {flop * recipe.train.steps:.3g} in all\n"
            f"memory       {kept / _GIB:.2f} GiB of weights, gradients and moments; {peak / _GIB:.2f} GiB at the peak\n"
            f"speed        {1 / median:.3g} steps a second, {flop / median:.3g} FLOP/s; "
            f"{sum(waits) / sum(seconds):.1%} waiting for data\n"
            f"time         {3600 / median:.0f} steps an hour; {hours:.3g} hours for {recipe.train.steps} steps"
        )
    return 0
