"""An exported model as an engine of TensorRT, or of TensorRT-RTX, which builds without a GPU. One path for both."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from i2sb_export.typed import retyped
from i2sb_rt.engines.engine_file import (
    MODULES,
    EngineFile,
    Profile,
    Shape,
    architecture_here,
    gpu_here,
    library,
    logger,
    read_note,
    write_engine,
)
from i2sb_rt.engines.native import cache_folder
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError
from i2sb_rt.model_file import ModelInfo, file_sha256, read_info, replacing

_LARGEST: Final = 2_000_000_000  # bytes of a network that is parsed from memory

Report = Callable[[str, float], None]
"""Told the phase that the builder is in, and which share of it is done, 0 to 1."""


def parse_shapes(text: str | None, info: ModelInfo) -> Profile:
    """Read MIN:OPT:MAX, each [Bx]HxW or one side for both; None is what the model is made for.

    Without a text, a model of one size has that size; others go from their smallest side to their tile, which is also
    where they are fastest, and from one image to their batch. Raises UsageError for what the model does not take.
    """
    if text is None:
        smallest = info.tile if info.minimum == info.tile else -(-info.minimum // info.multiple) * info.multiple
        largest = (info.batch, info.tile, info.tile)
        return Profile(min=(1, smallest, smallest), opt=largest, max=largest)
    parts = [_shape(part, text) for part in text.split(":")]
    if len(parts) == 1:
        parts *= 3
    if len(parts) != 3:
        raise UsageError(f"--shapes is MIN:OPT:MAX, or one shape for all, not {text!r}")
    profile = Profile(min=parts[0], opt=parts[1], max=parts[2])
    if any(not low <= middle <= high for low, middle, high in zip(*parts, strict=True)):
        raise UsageError(f"--shapes {text}: each number of MIN is at most that of OPT, and this at most that of MAX")
    for _, *sides in parts:
        for side in sides:
            if side % info.multiple or side < info.minimum:
                raise UsageError(
                    f"--shapes {text}: sides of {info.name} are multiples of {info.multiple}, at least {info.minimum}"
                )
            if info.minimum == info.tile != side:
                raise UsageError(
                    f"--shapes {text}: {info.name} takes {info.tile} x {info.tile} pixels and no other size"
                )
    return profile


def _shape(part: str, text: str) -> Shape:
    if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){0,2}", part):
        raise UsageError(f"--shapes {text}: {part!r} is not a side, HxW or BxHxW")
    numbers = [int(number) for number in part.split("x")]
    if len(numbers) == 1:
        return 1, numbers[0], numbers[0]
    batch, height, width = [1, *numbers][-3:]
    return batch, height, width


@dataclass(frozen=True)
class Layers:
    """Of a parsed network: how many layers of each kind compute in each type, and what comes in and goes out."""

    counts: Counter[tuple[str, str]]
    ports: dict[str, str]


def build_engine(
    source: Path,
    target: Path,
    precision: str = "fp16",
    shapes: str | None = None,
    architectures: Sequence[str] = (),
    report: Report | None = None,
) -> EngineFile:
    """Build the engine `target` (.engine) of the .onnx model `source`, and write it beside what is known of it.

    precision: of weights and activations, fp32, fp16 or bf16. shapes: as in `parse_shapes`. architectures: such as
    sm89; none is that of the GPU that is here. Raises UsageError for what cannot be built, DeviceError where there is
    nothing to build with or the builder fails, ModelFileError for a model that cannot be read, OutputError where target
    cannot be written.
    """
    if target.suffix != ".engine":
        raise UsageError(f"{target}: the name of an engine ends in .engine.")
    trt = _library()
    info = read_info(source)
    if info.is_quantized:
        raise UsageError(f"{source}: is in int8, for CPUs; build the engine of the model that it was made of.")
    if info.holds_points:
        raise UsageError(f"{source}: engines are for images; points run from .onnx files.")
    profile = parse_shapes(shapes, info)
    chosen = _chosen(trt, architectures)
    builder, network = _parsed(trt, retyped(onnx.load(str(source)), precision))
    config = builder.create_builder_config()
    ranges = builder.create_optimization_profile()
    extremes = (profile.min, profile.opt, profile.max)
    ranges.set_shape("x", *((batch, info.in_channels, height, width) for batch, height, width in extremes))
    ranges.set_shape("t", *((batch,) for batch, _, _ in extremes))
    _require(config.add_optimization_profile(ranges) >= 0, trt)
    config.clear_flag(trt.BuilderFlag.TF32)  # which is on by default: fp32 means fp32
    ours = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if ours is not None:  # TensorRT-RTX runs in CUDA graphs only if all memory is given to it
        config.set_flag(ours)
    known = getattr(trt, "ComputeCapability", None)
    if known is not None:
        config.num_compute_capabilities = len(chosen)
        for index, name in enumerate(chosen):
            _require(config.set_compute_capability(getattr(known, name.upper()), index), trt)
    monitor = _monitor(trt, report) if report is not None else None
    if monitor is not None:
        config.progress_monitor = monitor
    timings = _Timings(trt, config)
    data = builder.build_serialized_network(network, config)
    _require(data is not None, trt)
    timings.keep()
    about = EngineFile(
        info=info, library=trt.__name__, version=trt.__version__, architectures=chosen, precision=precision,
        profile=profile, source_sha256=file_sha256(source), gpu=gpu_here() if known is None else "",
    )  # fmt: skip
    write_engine(target, memoryview(data), about)
    return read_note(target)


def layers_of(model: onnx.ModelProto) -> Layers:
    """Parse a network of `typed.retyped` as for an engine, and tell the types that its layers compute in."""
    _, network = _parsed(_library(), model)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    counts = Counter((layer.type.name, layer.get_output(0).dtype.name) for layer in layers if layer.num_outputs)
    ports = [network.get_input(i) for i in range(network.num_inputs)]
    ports += [network.get_output(i) for i in range(network.num_outputs)]
    return Layers(counts, {port.name: port.dtype.name for port in ports})


def _library() -> Any:
    """Return TensorRT, or without a GPU TensorRT-RTX, which alone can build there; see `library`."""
    return library(MODULES[::-1] if architecture_here() is None else MODULES)


def _require(done: bool, trt: Any) -> None:
    if not done:
        raise DeviceError(f"{trt.__name__} {trt.__version__} built no engine; what it said stands above.")


def _parsed(trt: Any, model: onnx.ModelProto) -> tuple[Any, Any]:
    """Return a builder and the network of a typed model; the builder must live as long as the network."""
    try:
        builder = trt.Builder(logger(trt))
    except TypeError as error:  # so its bindings say that there is no driver, or one that is too old
        raise DeviceError(f"{trt.__name__} {trt.__version__} cannot start; what it said stands above.") from error
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # later releases know no other networks
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger(trt))
    with tempfile.TemporaryDirectory() as folder:
        if model.ByteSize() < _LARGEST:
            good = parser.parse(model.SerializeToString())
        else:
            path = Path(folder) / "model.onnx"
            onnx.save_model(model, str(path), save_as_external_data=True, location="model.data")
            good = parser.parse_from_file(str(path))
    if not good:
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ModelFileError(f"{trt.__name__} {trt.__version__} cannot read the network: {reasons}")
    return builder, network


def _chosen(trt: Any, architectures: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs that the engine is for: those asked for, or the one that is here."""
    known, here = getattr(trt, "ComputeCapability", None), architecture_here()
    if known is None and list(architectures) not in ([], [here]):
        raise UsageError(f"--arch: {trt.__name__} builds for the GPU that is here ({here or 'none'}); leave it out")
    if not architectures and here is None:
        raise DeviceError("there is no GPU to build for; name one with --arch, which TensorRT-RTX alone can do.")
    chosen = tuple(architectures) or (str(here),)
    names = chosen if known is None else [name.lower() for name in known.__members__ if re.fullmatch("SM[0-9]+", name)]
    for name in chosen:
        if name not in names:
            told = f"--arch {name}" if architectures else f"this GPU is {name}"
            raise UsageError(
                f"{told}: {trt.__name__} {trt.__version__} builds for {', '.join(names)}; for others, such as sm90, "
                "there is TensorRT itself: pip install tensorrt"
            )
    return chosen


class _Timings:
    """The builder's measurements of kernels, kept between runs in the user's cache."""

    path: Path | None

    def __init__(self, trt: Any, config: Any) -> None:
        self.config = config
        # Without a GPU nothing is measured, and TensorRT-RTX refuses to make a cache.
        folder = None if architecture_here() is None else cache_folder("timings")
        if folder is None:
            self.path = None
            return
        gpu = re.sub(r"\W+", "-", gpu_here())
        self.path = folder / f"{trt.__name__}-{trt.__version__}-{gpu}.timings"
        before = b""
        with suppress(OSError):
            before = self.path.read_bytes()
        for blob in (before, b""):
            cache = config.create_timing_cache(blob)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return
        self.path = None

    def keep(self) -> None:
        cache = self.config.get_timing_cache() if self.path is not None else None
        if self.path is not None and cache is not None:
            with suppress(OSError), replacing(self.path) as temporary:
                temporary.write_bytes(memoryview(cache.serialize()))


def _monitor(trt: Any, report: Report) -> Any:
    """Make what the builder tells its progress to."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = max(num_steps, 1)
            report(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(phase_name, min(1.0, (step + 1) / self.steps.get(phase_name, 1)))
            return True

        def phase_finish(self, phase_name: str) -> None:
            report(phase_name, 1.0)

    return Monitor()
