"""How fast each way of restoring is here, timed turn about, after a look at whether it restores the same pictures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from i2sb_rt.errors import CancelledError, I2SBError, alone, ours
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.image import U8
from i2sb_rt.restorer import Restorer
from i2sb_rt.timeline import Timeline

# The least PSNR in dB between what two ways make of one picture, by the coarser of their precisions.
AGREEMENT: Final = {"fp32": 55.0, "tf32": 45.0, "bf16": 40.0, "fp16": 40.0, "int8": 30.0}
ROUNDS: Final = (3, 50)
# Seconds of rest before each call. The threads of some libraries spin on for a while after their work (those of ONNX
# Runtime do): without a rest the next call, whosever it is, takes up to a third longer.
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
    """A model in an engine. named: what it is called; ready: seconds from its file to the first restored picture.

    each: seconds a picture, of every round; shares: of them, what was spent in the network, where that is known.
    psnr: to what the first way made, in dB, infinite where equal. error: why it was not timed.
    """

    named: str
    restorer: Restorer
    ready: float
    each: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    psnr: float = math.inf
    error: I2SBError | None = None

    def speedup(self, first: Way) -> float:
        """Return how many times as fast as the first way it is: the median over the rounds that both have run."""
        return statistics.median(a / b for a, b in zip(first.each, self.each, strict=False))

    def record(self, first: Way) -> dict[str, Any]:
        """Return what was measured as JSON takes it."""
        return {
            "ready_s": round(self.ready, 3),
            "ms": round(1e3 * statistics.median(self.each), 3),
            "each_ms": [round(1e3 * seconds, 3) for seconds in self.each],
            "network_share": round(statistics.median(self.shares), 4) if self.shares else None,
            "speedup": round(self.speedup(first), 3),
            "psnr": round(self.psnr, 2) if math.isfinite(self.psnr) else None,
        }


def measure(
    ways: Sequence[Way],
    work: Work,
    seconds: float,
    is_stopped: Callable[[], bool],
    tell: Callable[[Way], None] = lambda way: None,
) -> None:
    """Restore in every way, turn about, for about so many seconds; a way that fails or differs is not timed on.

    The others are held against the first one that does not fail. tell: is given each way when it is ready. Raises
    CancelledError where `is_stopped` says so; what was timed until then stands.
    """
    first: Way | None = None
    wanted: list[U8] = []
    for way in ways:
        with _noted(way):
            begin = time.perf_counter()
            made = _restore(way, work, is_stopped, count=1)
            way.ready += time.perf_counter() - begin
            if len(work.pictures) > 1:
                made = _restore(way, work, is_stopped)
            if first is None:
                first, wanted = way, made
            else:
                way.psnr = min(map(psnr, wanted, made))
                _agree(way, first)
            tell(way)
    once = 0.0
    for way in ways:  # threads and memory settle in this round, which does not count
        once += _time(way, work, is_stopped)
        way.each.clear()
        way.shares.clear()
    for _ in range(max(ROUNDS[0], int(min(ROUNDS[1], seconds / max(once, 1e-9))))):
        for way in ways:
            _time(way, work, is_stopped)


@contextmanager
def _noted(way: Way) -> Iterator[None]:
    """Note an error as the way's, in place of ending all; but not that somebody stopped it."""
    try:
        yield
    except CancelledError:
        raise
    except Exception as error:
        way.error = alone(ours(error))


def _time(way: Way, work: Work, is_stopped: Callable[[], bool]) -> float:
    """Restore once and note how long it took; return that with the rest before it, in seconds."""
    if way.error is not None:
        return 0.0
    time.sleep(REST)
    phases, begin = Timeline(), time.perf_counter()
    with _noted(way):
        _restore(way, work, is_stopped, phases)
        took = time.perf_counter() - begin
        way.each.append(took / len(work.pictures))
        network = phases.milliseconds().get("network")
        if network is not None and way.restorer.jobs == 1:  # of several at once the sum would be no share
            way.shares.append(network / (1e3 * took))
    return REST + time.perf_counter() - begin


def _restore(
    way: Way, work: Work, is_stopped: Callable[[], bool], phases: Timeline | None = None, count: int | None = None
) -> list[U8]:
    """Restore the first `count` pictures, or all.

    A GPU is asked between calls alone whether to stop: its loop takes longer where somebody watches it.
    """
    if is_stopped():
        raise CancelledError("stopped")

    def observe(*event: Any) -> bool:
        if phases is not None:
            phases.observe(*event)
        return is_stopped()

    watched = observe if way.restorer.engine_name in ("native", "torch") else None
    out: list[U8] = way.restorer.restore(
        list(work.pictures[:count]), nfe=work.nfe, sampler=work.sampler, mask=work.mask, observer=watched
    )
    return out


def _agree(way: Way, first: Way) -> None:
    """Raise I2SBError where a way makes other pictures than the first by more than the precisions explain."""
    least = min(AGREEMENT[one.restorer.precision] for one in (way, first))
    if way.psnr < least:
        raise I2SBError(f"its picture differs from that of {first.named}: {way.psnr:.1f} dB of at least {least:g} dB")
