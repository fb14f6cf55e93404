"""The loop on a GPU: state, noise and coefficients stay there, and one captured step is replayed once a plan row.

The same code runs without graphs on a CPU, where the kernels' NumPy and C++ twins take Triton's place: that is how it
is tested where there is no GPU.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from i2sb_kernels.bridge_step import COLUMNS, bridge_step
from i2sb_rt import _core
from i2sb_rt.engines.carrier import Carrier
from i2sb_rt.engines.switches import SWITCHES
from i2sb_rt.engines.tiles import Tiles
from i2sb_rt.errors import DeviceError
from i2sb_rt.networks.fused import FusedUNet

F32 = NDArray[np.float32]
OnRow = Callable[[int], bool]

BATCHES: Final = (1, 2, 4, 8, 16, 32)
WHOLE: Final = 8  # rows of a plan that is captured as one graph
GRAPHS_KEPT: Final = 8
_CAPTURING: Final = threading.Lock()  # PyTorch captures one graph at a time in a process
_COLUMN: Final = {name: index for index, name in enumerate(COLUMNS)}


class Planes(ABC):
    """A network of another library on a device: planes in, planes out, the time as an input. See `FusedUNet` for ours.

    `step`, int32 [1], holds the row of the plan that a call is to run.
    """

    def __init__(self, device: str) -> None:
        self.step = torch.zeros(1, dtype=torch.int32, device=device)
        self.capacity = 1024
        self.times = torch.zeros(self.capacity, device=device)

    def set_times(self, times: Tensor) -> None:
        """Take the times [rows] of a plan; more than `capacity` of them move the table, so that graphs are void."""
        if len(times) > self.capacity:
            self.times = self.times.new_zeros(1 << (len(times) - 1).bit_length())
            self.capacity = len(self.times)
        self.times[: len(times)] = times.to(self.times.device)

    def time(self, batch: int) -> Tensor:
        """Return the time of the row in `step`, float32 [batch]."""
        return self.times.index_select(0, self.step).expand(batch).contiguous()

    @abstractmethod
    def bound(self, batch: int, height: int, width: int) -> Callable[[Tensor], Tensor]:
        """Return what maps float32 [batch, Cin, height, width] to [batch, C, height, width], for this shape alone.

        Raises UsageError for a shape that the network does not take.
        """


@dataclass(frozen=True)
class Shape:
    """What a captured step depends on: another of these needs another graph."""

    batch: int
    channels: int
    height: int
    width: int
    cond: int
    masked: bool
    reads_x1: bool
    history: int
    clip: bool
    known: str
    states: int
    tile: int
    overlap: int
    group: int


class Step:
    """The buffers of one shape, and one step over them."""

    def __init__(self, network: FusedUNet | Planes, shape: Shape) -> None:
        self.network, self.shape = network, shape
        sides = (shape.group, shape.tile, shape.tile) if shape.tile else (shape.batch, shape.height, shape.width)
        self.bound = network.bound(*sides) if isinstance(network, Planes) else None
        device = network.step.device
        image = (shape.batch, shape.channels, shape.height, shape.width)

        def planes(wanted: bool) -> Tensor | None:
            return torch.zeros(image, device=device) if wanted else None

        self.x = torch.zeros(image, device=device)
        self.x1 = planes(shape.reads_x1)
        self.h1, self.h2 = planes(shape.history >= 1), planes(shape.history >= 2)
        self.x0 = planes(shape.history >= 2)
        self.mask = torch.zeros((shape.batch, 1, *image[2:]), device=device) if shape.masked else None
        self.cond = torch.zeros((shape.batch, shape.cond, *image[2:]), device=device) if shape.cond else None
        self.seeds = torch.zeros(shape.batch, dtype=torch.int64, device=device)
        self.rows = torch.zeros((0, len(COLUMNS)), device=device)
        self.slots = self.x.new_zeros((shape.states, *image)) if shape.states else None
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)
        # With tiles the network sees cuttings of x, and o is blended; else it sees what the step before wrote.
        self.tiles = Tiles(self.x, shape.tile, shape.overlap, shape.group) if shape.tile else None
        self.o = torch.zeros_like(self.x) if shape.tile else None
        self.seen = None if shape.tile or self.bound else self._input(self.x, self.cond)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def load(self, sent: dict[str, Tensor]) -> None:
        """Copy what was sent in. Buffers keep their places, so that graphs hold; a longer plan makes others."""
        rows = sent["rows"]
        if len(rows) > len(self.rows):
            self.graphs.clear()
            self.rows = self.rows.new_zeros((self.network.capacity, len(COLUMNS)))
        for name, tensor in sent.items():
            buffer = getattr(self, name)
            if buffer is not None:
                buffer[: len(tensor)].copy_(tensor)
                buffer[len(tensor) :].zero_()
        for history in (self.h1, self.h2):
            if history is not None:
                history.zero_()
        if self.seen is not None:
            self.seen.copy_(self._input(self.x, self.cond))
        self.network.step.zero_()
        self.slot.fill_(len(rows) - 1)

    def run(self, z: Tensor | None = None, z_known: Tensor | None = None) -> None:
        """Run the row that the network's step holds, and go on to the next; nothing here waits for the device."""
        if self.tiles is not None and self.o is not None:
            self.tiles.predict(self._predict, self.x, self.cond, self.o)
            o, patch = self.o, 0
        elif isinstance(self.network, Planes):
            o, patch = self._predict(self.x, self.cond), 0
        else:
            assert self.seen is not None
            o, patch = self.network(self.seen), self.network.patch
        bridge_step(
            self.x, o, self.rows, self.network.step, clip=self.shape.clip, known=self.shape.known,  # type: ignore[arg-type]
            x1=self.x1, mask=self.mask, h1=self.h1, h2=self.h2, x0=self.h1 if self.x0 is None else self.x0,
            z=z, z_known=z_known, seeds=self.seeds, patch=patch, seen=self.seen,
        )  # fmt: skip
        if self.h1 is not None and self.h2 is not None and self.x0 is not None:
            self.h2.copy_(self.h1)
            self.h1.copy_(self.x0)
        if self.slots is not None:
            self.slots.index_copy_(0, self.slot, self.x[None])
            self.slot.sub_(1)
        self.network.step.add_(1)

    def _input(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Return state and cond [B, C, H, W], float32, in the network's type and layout."""
        network = self.network
        assert not isinstance(network, Planes)
        seen = x if cond is None else torch.cat([x, cond], 1)
        seen = F.pixel_unshuffle(seen, network.patch) if network.patch > 1 else seen
        rows = seen.new_zeros((len(seen), *seen.shape[2:], network.in_width), dtype=network.dtype)
        rows[..., : seen.shape[1]] = seen.permute(0, 2, 3, 1)
        return rows

    def _predict(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Map the state and cond [B, C, H, W], float32, to the network's output [B, C, H, W], as it comes."""
        if self.bound is not None:
            return self.bound(x if cond is None else torch.cat([x, cond], 1))
        assert not isinstance(self.network, Planes)
        out = self.network(self._input(x, cond)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(out, self.network.patch) if self.network.patch > 1 else out


@dataclass
class Launched:
    """A batch that the device was given: what it makes, the event behind that, and the states on the way."""

    out: Tensor
    behind: Any
    path: F32 | None


class Loop:
    """Runs plans on the device of a network. bucket: the batch that is always run, None for the next larger one.

    With a bucket an image's bytes do not depend on its company: every kernel meets the same shapes. Images in tiles are
    taken one by one then; tiles: how many of them at a time, None is the bucket, or what a call asks for.
    """

    def __init__(
        self, network: FusedUNet | Planes, tf32: bool = False, bucket: int | None = None, tiles: int | None = None
    ) -> None:
        self.network, self.tf32, self.bucket, self.tiles = network, tf32, bucket, tiles or bucket
        self.graphed = network.step.device.type == "cuda"
        self._carrier = Carrier(network.step.device)
        self._steps: OrderedDict[Shape, Step] = OrderedDict()
        self._computing = threading.Lock()  # the buffers and tables are those of one batch at a time
        self._times = b""  # of the plan that the tables are for
        # The event behind all that was launched; at first behind what the network's weights were made by.
        self._last: Any = torch.cuda.current_stream(network.step.device).record_event() if self.graphed else None
        self._pool: Any = None
        self._stream: Any = None

    def run(
        self, x: F32, rows: F32, *, x1: F32, clip: bool = False, known: str = "renew", cond: F32 | None = None,
        mask: F32 | None = None, seeds: Sequence[int] | None = None, draws: F32 | None = None,
        trajectory: bool = False, tile: int = 0, overlap: int = 0, network_batch: int = 0, on_row: OnRow | None = None,
    ) -> tuple[F32, F32 | None]:  # fmt: skip
        """Run a plan [rows, 10] on x [B, C, H, W]; the arguments are those of `_core.sample`.

        Returns the result, and with trajectory the states [B, rows, C, H, W], index 0 final. Several threads may run
        at once: the device computes for one, while the arrays of others come and go.
        Raises CancelledError where on_row says to stop.
        """
        done: list[F32] = []
        paths: list[F32] = []
        before: Launched | None = None
        device = torch.cuda.device(self.network.step.device) if self.graphed else nullcontext()
        most = 1 if self.bucket and tile else self.bucket or BATCHES[-1]
        numbers = np.array(seeds or [0] * len(x), np.uint64).view(np.int64)
        reads_x1 = mask is not None or bool(rows[:, _COLUMN["c"]].any())
        given = {"x": x, "x1": x1 if reads_x1 else None, "cond": cond, "mask": mask, "seeds": numbers}
        how = (clip, known, trajectory, tile, overlap, network_batch)
        with device:
            for first in range(0, len(x), most):
                part = slice(first, first + most)
                arrays = {name: array[part] for name, array in given.items() if array is not None}
                sent, behind = self._carrier.send({"rows": rows, **arrays})
                with self._computing, SWITCHES.held(self.tf32):
                    self._carrier.receive(sent, behind)
                    launched = self._launch(sent, rows, on_row, None if draws is None else draws[:, part], how)
                if before is not None:  # it comes back while this part is computed
                    done.append(self._carrier.fetch(before.out, before.behind))
                if launched.path is not None:
                    paths.append(launched.path)
                before = launched
            assert before is not None
            done.append(self._carrier.fetch(before.out, before.behind))
        return _joined(done), _joined(paths) if trajectory else None

    def forget(self) -> None:
        """Give back the memory of every shape met so far."""
        with self._computing:
            self._settle()
            self._steps.clear()
        if self.graphed:
            with _CAPTURING:
                torch.cuda.empty_cache()

    def _settle(self) -> None:
        """Wait for all that was launched, before buffers or graphs that it may use are given back."""
        if self._last is not None:
            self._last.synchronize()

    def _launch(
        self, sent: dict[str, Tensor], rows: F32, on_row: OnRow | None, draws: F32 | None,
        how: tuple[bool, str, bool, int, int, int],
    ) -> Launched:  # fmt: skip
        """Enqueue a batch; without on_row, draws and trajectory nothing here waits for the device."""
        clip, known, trajectory, tile, overlap, group = how
        history = 2 if rows[:, _COLUMN["e"]].any() else int(rows[:, _COLUMN["d"]].any())
        count, channels, height, width = sent["x"].shape
        batch = count if self.bucket and tile else self.bucket or next(size for size in BATCHES if size >= count)
        shape = Shape(
            batch=batch, channels=channels, height=height, width=width,
            cond=sent["cond"].shape[1] if "cond" in sent else 0, masked="mask" in sent, reads_x1="x1" in sent,
            history=history, clip=clip, known=known, states=len(rows) if trajectory else 0, tile=tile,
            overlap=overlap, group=self.tiles or group or batch,
        )  # fmt: skip
        current: Any = torch.cuda.current_stream() if self.graphed else None
        if current is not None:  # threads may have chosen streams of their own
            current.wait_event(self._last)
        try:
            self._tell_times(rows, sent["rows"])
            step = self._step(shape)
            if len(rows) > len(step.rows):
                self._settle()
            step.load(sent)
            if self.graphed and draws is None:
                self._replay(step, len(rows), on_row)
            else:
                self._eager(step, rows, draws, on_row)
            path = None
            if step.slots is not None:
                path = step.slots.transpose(0, 1)[:count].to("cpu", copy=True).contiguous().numpy()
            out = step.x[:count].clone()
        finally:
            self._last = None if current is None else current.record_event()
        return Launched(out, self._last, path)

    def _tell_times(self, rows: F32, sent: Tensor) -> None:
        """Fill the network's tables, unless the plan before had the same times."""
        times = rows[:, 0].tobytes()
        if times == self._times:
            return
        self._times = b""
        if len(rows) > self.network.capacity:
            self._settle()
            self._steps.clear()
        self.network.set_times(sent[:, 0])
        self._times = times

    def _step(self, shape: Shape) -> Step:
        step = self._steps.get(shape) or Step(self.network, shape)
        self._steps[shape] = step
        self._steps.move_to_end(shape)
        if len(self._steps) > GRAPHS_KEPT:
            self._settle()
            self._steps.popitem(last=False)
        return step

    def _eager(self, step: Step, rows: F32, draws: F32 | None, on_row: OnRow | None) -> None:
        """Run row by row, with recorded draws in the order that the core takes them."""
        left = iter([] if draws is None else draws)

        def take(wanted: bool) -> Tensor | None:
            if draws is None or not wanted:
                return None
            drawn = torch.zeros_like(step.x)
            array = next(left)
            drawn[: len(array)] = torch.tensor(array).to(drawn.device)
            return drawn

        for row, columns in enumerate(rows):
            z = take(columns[_COLUMN["s"]] != 0)
            step.run(z, take(step.mask is not None and columns[_COLUMN["r"]] != 0))
            _ask(on_row, row)

    def _replay(self, step: Step, rows: int, on_row: OnRow | None) -> None:
        """Replay a graph of one row once a row, or one of the whole plan if it is short and nobody watches.

        A step over tiles is long enough by itself.
        """
        count = rows if rows <= WHOLE and on_row is None and step.tiles is None else 1
        if count not in step.graphs:
            step.graphs[count] = self._capture(step, count)
        graph = step.graphs[count]
        behind = torch.cuda.Event()  # type: ignore[no-untyped-call]
        for row in range(0, rows, count):
            graph.replay()
            if on_row is not None:  # at most one step ahead of the device, so that a stop is heard in time
                if row:
                    behind.synchronize()
                behind.record()
                _ask(on_row, row)

    def _capture(self, step: Step, count: int) -> torch.cuda.CUDAGraph:
        """Capture `count` steps; the buffers' contents are what they were."""
        kept = {
            name: getattr(step, name).clone()
            for name in ("x", "seen", "h1", "h2", "slot")
            if getattr(step, name) is not None
        }
        for _ in range(2):  # kernels are compiled and chosen before the capture
            self.network.step.zero_()
            step.slot.copy_(kept["slot"])
            step.run()
        if self._stream is None:  # our own: PyTorch frees a stream's cuBLAS workspace with any of its graphs
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        if not any(other.graphs for other in self._steps.values()):
            self._pool = torch.cuda.graph_pool_handle()  # one whose graphs are all gone takes no more
        graph = torch.cuda.CUDAGraph()
        back = torch.cuda.stream(torch.cuda.current_stream())  # a capture that fails leaves its stream behind
        how = {"pool": self._pool, "stream": self._stream, "capture_error_mode": "thread_local"}
        try:
            with _CAPTURING, back, torch.cuda.graph(graph, **how):
                for _ in range(count):
                    step.run()
        except RuntimeError as error:  # the end of a failed capture fails too; what came first is what matters
            if isinstance(error.__context__, DeviceError | torch.OutOfMemoryError):
                raise error.__context__ from error
            raise
        for name, value in kept.items():
            getattr(step, name).copy_(value)
        self.network.step.zero_()
        return graph


def _joined(parts: list[F32]) -> F32:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ask(on_row: OnRow | None, row: int) -> None:
    if on_row is not None and on_row(row):
        raise _core.CancelledError("stopped by the caller")
