"""The loop on a GPU: state, noise and coefficients stay there, and one captured step is replayed once a plan row.

The same code runs without graphs on a CPU, where the kernels' NumPy and C++ twins take Triton's place: that is how it
is tested where there is no GPU.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from i2sb_kernels.bridge_step import COLUMNS, bridge_step
from i2sb_rt import _core
from i2sb_rt.engines.tiles import Tiles
from i2sb_rt.errors import DeviceError
from i2sb_rt.networks.fused import FusedUNet

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def set_times(self, times: Tensor) -> bool:
        """Take the times [rows] of a plan; True if they moved, so that captured graphs are void."""
        moved = len(times) > self.capacity
        if moved:
            self.capacity = 1 << (len(times) - 1).bit_length()
            self.times = self.times.new_zeros(self.capacity)
        self.times[: len(times)] = times.to(self.times.device)
        return moved

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

    def load(self, rows: F32, **arrays: Any) -> None:
        """Copy a call's arrays in. Buffers keep their places, so that graphs hold; a longer plan makes others."""
        if len(rows) > len(self.rows):
            self.rows = self.rows.new_zeros((self.network.capacity, len(COLUMNS)))
            self.graphs.clear()
        for name, array in {"rows": rows, **arrays}.items():
            buffer = getattr(self, name)
            if buffer is not None:
                buffer[: len(array)].copy_(_staged(array, buffer), non_blocking=True)
                buffer[len(array) :].zero_()
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


def _staged(array: NDArray[Any], buffer: Tensor) -> Tensor:
    """Copy an array to where the device can fetch it from; what is given is not ours for long."""
    staged = torch.empty(array.shape, dtype=buffer.dtype, pin_memory=buffer.device.type == "cuda")
    np.copyto(staged.numpy(), array)
    return staged


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
        self._steps: OrderedDict[Shape, Step] = OrderedDict()
        self._pool: Any = None
        self._stream: Any = None

    def run(
        self, x: F32, rows: F32, *, x1: F32, clip: bool = False, known: str = "renew", cond: F32 | None = None,
        mask: F32 | None = None, seeds: Sequence[int] | None = None, draws: F32 | None = None,
        trajectory: bool = False, tile: int = 0, overlap: int = 0, network_batch: int = 0, on_row: OnRow | None = None,
    ) -> tuple[F32, F32 | None]:  # fmt: skip
        """Run a plan [rows, 10] on x [B, C, H, W]; the arguments are those of `_core.sample`.

        Returns the result, and with trajectory the states [B, rows, C, H, W], index 0 final.
        Raises CancelledError where on_row says to stop.
        """
        parts, paths = [], []
        device = torch.cuda.device(self.network.step.device) if self.graphed else nullcontext()
        most = 1 if self.bucket and tile else self.bucket or BATCHES[-1]
        with device, _SWITCHES.held(self.tf32):
            for first in range(0, len(x), most):
                part = slice(first, first + most)
                done, path = self._part(
                    x[part], rows, on_row, draws[:, part] if draws is not None else None, trajectory,
                    (clip, known, tile, overlap, network_batch), x1=x1[part], cond=None if cond is None else cond[part],
                    mask=None if mask is None else mask[part],
                    seeds=np.array((seeds or [0] * len(x))[part], np.uint64).view(np.int64),
                )  # fmt: skip
                parts.append(done)
                paths.append(path)
        return _joined(parts), _joined(paths) if trajectory else None

    def forget(self) -> None:
        """Give back the memory of every shape met so far."""
        self._steps.clear()
        if self.graphed:
            torch.cuda.empty_cache()

    def _part(
        self, x: F32, rows: F32, on_row: OnRow | None, draws: F32 | None, trajectory: bool,
        how: tuple[bool, str, int, int, int], **arrays: Any,
    ) -> tuple[F32, Any]:  # fmt: skip
        clip, known, tile, overlap, group = how
        used = {name: bool(rows[:, column].any()) for name, column in _COLUMN.items()}
        batch = len(x) if self.bucket and tile else self.bucket or next(size for size in BATCHES if size >= len(x))
        cond, mask = arrays["cond"], arrays["mask"]
        _, channels, height, width = x.shape
        shape = Shape(
            batch=batch, channels=channels, height=height, width=width, cond=0 if cond is None else cond.shape[1],
            masked=mask is not None, reads_x1=used["c"] or mask is not None, history=2 if used["e"] else int(used["d"]),
            clip=clip, known=known, states=len(rows) if trajectory else 0, tile=tile, overlap=overlap,
            group=self.tiles or group or batch,
        )  # fmt: skip
        if self.network.set_times(torch.tensor(rows[:, 0])):
            self._steps.clear()
        step = self._step(shape)
        step.load(rows, x=x, **{name: array for name, array in arrays.items() if array is not None})
        if self.graphed and draws is None:
            self._replay(step, len(rows), on_row)
        else:
            self._eager(step, rows, draws, on_row)
        path = (
            None
            if step.slots is None
            else step.slots.transpose(0, 1)[: len(x)].to("cpu", copy=True).contiguous().numpy()
        )
        return step.x[: len(x)].to("cpu", copy=True).numpy(), path

    def _step(self, shape: Shape) -> Step:
        step = self._steps.get(shape) or Step(self.network, shape)
        self._steps[shape] = step
        self._steps.move_to_end(shape)
        if len(self._steps) > GRAPHS_KEPT:
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


class _Switches:
    """PyTorch's switches of precision and algorithms, which are of the whole process, as a loop wants them.

    Loops that want the same run together, others in turn; when none runs they are as the host program left them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users, self._tf32 = 0, False
        self._before: tuple[Any, ...] = ()

    @contextmanager
    def held(self, tf32: bool) -> Iterator[None]:
        """Compute float32 convolutions and products as asked, by the same algorithms each time, whatever others set."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users or self._tf32 == tf32)
            if not self._users:
                self._before, self._tf32 = self._read(), tf32
                self._write(("tf32", "tf32", False, True) if tf32 else ("ieee", "ieee", False, True))
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if not self._users:
                    self._write(self._before)
                    self._changed.notify_all()

    @staticmethod
    def _read() -> tuple[Any, ...]:
        cudnn: Any = torch.backends.cudnn
        products = torch.backends.cuda.matmul.fp32_precision
        return cudnn.conv.fp32_precision, products, cudnn.benchmark, cudnn.deterministic

    @staticmethod
    def _write(values: tuple[Any, ...]) -> None:
        cudnn: Any = torch.backends.cudnn
        cudnn.conv.fp32_precision, products, cudnn.benchmark, cudnn.deterministic = values
        torch.backends.cuda.matmul.fp32_precision = products


_SWITCHES: Final = _Switches()


def _joined(parts: list[F32]) -> F32:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ask(on_row: OnRow | None, row: int) -> None:
    if on_row is not None and on_row(row):
        raise _core.CancelledError("stopped by the caller")
