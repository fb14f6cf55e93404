"""The native core, bound through i2sb_rt.h."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

class CoreError(RuntimeError):
    """A failure inside the core; its kinds are below. Wrong arguments are ValueError, exhausted memory MemoryError."""

class ModelError(CoreError):
    """The model file is missing, broken or not a bridge."""

class EngineError(CoreError):
    """The inference engine is missing or failed."""

class NonFiniteError(CoreError):
    """The result holds NaN or infinity."""

class CancelledError(CoreError):
    """An observer asked to stop."""

def version() -> str: ...
def schedule_compute(interval: int, beta_max: float, t0: float, T: float) -> dict[str, F64]:
    """The arrays of a schedule, each float64 [interval], by name."""

def plan(
    sampler: str | None,
    nfe: int,
    *,
    model: Model | None = None,
    schedule: tuple[int, float, float, float] | None = None,
    prediction: str | None = None,
    eta: float | None = None,
    steps: Sequence[int] | None = None,
    clip: bool | None = None,
    gammas: Sequence[float] | None = None,
    direction: str | None = None,
) -> tuple[F32, NDArray[np.int32], bool, Literal["x0", "renew"]]:
    """Rows [nfe, 10], steps [nfe + 1], clip and known of a sampler; what is None, or an nfe of 0, is the model's own.

    schedule: interval, beta_max, t0, T. gammas and direction are those of the sampler dsb.
    """

def noise(seed: int, first: int, count: int, row: int, purpose: int) -> F32: ...
def fill_hole(planes: F32, mask: F32) -> F32:
    """Planes [C,H,W] with what is around put smoothly where mask [H,W] is not 0."""

def tile_origins(size: int, tile: int, overlap: int) -> list[int]: ...

class Model:
    """A model file (.onnx), read without a protobuf library."""

    def __init__(self, path: str) -> None: ...
    @property
    def metadata(self) -> dict[str, str]:
        """Every metadata key with its value, the `i2sb.` prefix included."""
    def tensors(self) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
        """Every initializer: ONNX element type, shape, little-endian bytes."""
    def layout(self, width: int, height: int, tile: int = -1, overlap: int = -1) -> dict[str, int]:
        """width and height of the result, padded_width, padded_height, tile (0 = whole), overlap, tile_count."""

class Engine:
    """What the loop calls for the network. Made by one of the two class methods; any thread may use it at any time."""

    @staticmethod
    def openvino(
        model: Model,
        threads: int = 0,
        streams: int = 1,
        precision: str = "auto",
        cache_dir: str | None = None,
        library: str | None = None,
    ) -> Engine: ...
    @staticmethod
    def callback(predict: Callable[[F32, F32], F32]) -> Engine:
        """`predict(x [B,Cin,H,W], t [B]) -> out [B,Cout,H,W]`, float32; x and t are valid during the call only."""
    @staticmethod
    def whole(sample: Callable[..., tuple[F32, F32 | None]]) -> Engine:
        """An engine that runs whole plans: `sample(x, rows, *, x1, clip, known, cond, mask, seeds, draws, trajectory,
        tile, overlap, network_batch, on_row) -> (x, trajectory or None)`, as `sample` below; on_row(row) -> stop?"""
    @property
    def precision(self) -> str:
        """fp32 or bf16; "callback" for a callback engine."""
    @property
    def release(self) -> str:
        """The release of OpenVINO; empty for a callback engine."""

# phase ("network", "step", "prepare", "finish"), row, row_count, tile, tile_count, begin_ns, end_ns -> stop?
Observer = Callable[[str, int, int, int, int, int, int], bool | None]

def sample(
    engine: Engine,
    rows: F32,
    x1: F32,
    *,
    clip: bool = False,
    known: str = "renew",
    start: F32 | None = None,
    cond: F32 | None = None,
    mask: F32 | None = None,
    seeds: Sequence[int] | None = None,
    draws: F32 | None = None,
    trajectory: bool = False,
    tile: int = 0,
    overlap: int = 0,
    network_batch: int = 0,
    threads: int = 0,
    observer: Observer | None = None,
) -> F32:
    """Runs the plan; x [B,C,H,W], or with trajectory [B,rows,C,H,W] with index 0 final."""

def restore(
    model: Model,
    engine: Engine,
    rows: F32,
    image: U8,
    *,
    clip: bool = False,
    known: str = "renew",
    mask: U8 | None = None,
    seed: int = 0,
    tile: int = -1,
    overlap: int = -1,
    ensemble: int = 1,
    threads: int = 0,
    observer: Observer | None = None,
) -> U8:
    """Restores one image [H,W,C] of the model's channels, for colour also of 1 or 4; mask [H,W], not 0 = hole."""
