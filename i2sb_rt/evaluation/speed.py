"""How fast each way of restoring is here, timed turn about, after a look at whether it restores the same pictures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from i2sb_rt.errors import CancelledError, I2SBError
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.image import U8
from i2sb_rt.restorer import Restorer
from i2sb_rt.timeline import Timeline

# The least PSNR in dB between what two ways make of one picture, by the coarser of their precisions.
AGREEMENT: Final = {"fp32": 55.0, "tf32": 45.0, "bf16": 40.0, "fp16": 40.0, "int8": 30.0}
ROUNDS: Final = (3, 50)
# Seconds of rest before each call: threads of some libraries spin on for a while after their work, and take it from
# whoever comes next.
REST: Final = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What is restored, as `Restorer.restore` takes it: pictures [H, W, C], all in one call; mask: that of all."""

    pictures: Sequence[U8]
    mask: U8 | None
    nfe: int | None
    sampler: str | None


@dataclass(eq=False)
class Way:
    """An engine in a precision. ready: seconds from the file to the first result.

    each: seconds a picture, of every round; shares: of them, what was spent in the network, where that is known.
    psnr: to what the first way made, in dB, infinite where equal. error: why it was not timed.
    """

    restorer: Restorer
    ready: float
    each: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    psnr: float = math.inf
    error: I2SBError | None = None

    @property
    def name(self) -> str:
        """The engine and its precision."""
        return f"{self.restorer.engine_name} {self.restorer.precision}"

    def times(self, first: Way) -> float:
        """Return how many times as long the first way takes: the median over the rounds."""
        return statistics.median(a / b for a, b in zip(first.each, self.each, strict=True))

    def record(self, first: Way) -> dict[str, Any]:
        """Return what is known of it as JSON takes it."""
        ms = [round(1e3 * seconds, 3) for seconds in self.each]
        return {
            "ready_s": round(self.ready, 3),
            "ms": statistics.median(ms),
            "each_ms": ms,
            "network_share": round(statistics.median(self.shares), 4) if self.shares else None,
            "times": round(self.times(first), 3),
            "psnr": round(self.psnr, 2) if math.isfinite(self.psnr) else None,
        }


def measure(ways: Sequence[Way], work: Work, seconds: float, is_stopped: Callable[[], bool]) -> None:
    """Restore in every way, turn about, for about so many seconds; a way that fails or differs is not timed.

    The others are held against the first one that does not fail. Raises CancelledError where `is_stopped` says so.
    """
    first: Way | None = None
    wanted: list[U8] = []
    for way in ways:
        begin = time.perf_counter()
        try:
            made = _restore(way, work, is_stopped)
            way.ready += time.perf_counter() - begin
            if first is None:
                first, wanted = way, made
            else:
                way.psnr = min(map(psnr, wanted, made))
                _agree(way, first)
        except CancelledError:
            raise
        except I2SBError as error:
            way.error = error
    timed = [way for way in ways if way.error is None]
    once = sum(_time(way, work, is_stopped) for way in timed)  # threads and memory have settled after it
    for way in timed:
        way.each.clear()
        way.shares.clear()
    for _ in range(max(ROUNDS[0], min(ROUNDS[1], int(seconds / max(once, 1e-9))))):
        for way in timed:
            _time(way, work, is_stopped)


def _time(way: Way, work: Work, is_stopped: Callable[[], bool]) -> float:
    """Restore once and note how long it took; return that with the rest before it, in seconds."""
    time.sleep(REST)
    phases, begin = Timeline(), time.perf_counter()
    _restore(way, work, is_stopped, phases)
    took = time.perf_counter() - begin
    way.each.append(took / len(work.pictures))
    network = phases.milliseconds().get("network")
    if network is not None and way.restorer.jobs == 1:  # of several at once the sum would be no share
        way.shares.append(network / (1e3 * took))
    return REST + took


def _restore(way: Way, work: Work, is_stopped: Callable[[], bool], phases: Timeline | None = None) -> list[U8]:
    """Restore the pictures. A GPU is asked between calls alone: its loop takes longer where somebody watches it."""
    if is_stopped():
        raise CancelledError("stopped")

    def observe(*event: Any) -> bool:
        if phases is not None:
            phases.observe(*event)
        return is_stopped()

    watched = observe if way.restorer.engine_name in ("native", "torch") else None
    out: list[U8] = way.restorer.restore(
        list(work.pictures), nfe=work.nfe, sampler=work.sampler, mask=work.mask, observer=watched
    )
    return out


def _agree(way: Way, first: Way) -> None:
    """Raise I2SBError where a way makes other pictures than the first by more than the precisions explain."""
    least = min(AGREEMENT[one.restorer.precision] for one in (way, first))
    if way.psnr < least:
        raise I2SBError(f"{way.name} differs from {first.name}: {way.psnr:.1f} dB, where {least:g} dB are the least")
