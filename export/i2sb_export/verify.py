"""The proof that an exported model is still the model that was trained."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from i2sb_export import engines
from i2sb_export.tensorrt import layers_of
from i2sb_export.typed import retyped
from i2sb_rt import _core
from i2sb_rt.engines import open_engine
from i2sb_rt.errors import from_core
from i2sb_rt.evaluation.drawn import drawn_planes
from i2sb_rt.model_file import ModelInfo, Weights, load_weights, read_info, stored_weights
from i2sb_rt.model_info import QUANTIZED
from i2sb_rt.plan import Plan
from i2sb_rt.schedule import Schedule

F32 = NDArray[np.float32]

# Largest error that float32 may make, as a share of the largest value of what PyTorch gives.
TOLERANCES = {"network": 1e-4, "restoration": 1e-3, "transport": 1e-3}
# The same for a network in another precision, against the exported one in float32.
TYPED_TOLERANCES = {"fp32": 1e-6, "fp16": 5e-3}
_CALLS = (3, 10)  # fewest and most network calls of a restoration


@dataclass(frozen=True)
class Check:
    """One comparison. error: the larger, the worse, in `unit`; limit: what it may be, None where it only informs."""

    what: str
    error: float
    limit: float | None
    unit: str
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the error is within its limit; one that is not a number is not."""
        return self.limit is None or self.error <= self.limit


def verify(exported: str | os.PathLike[str], source: str | os.PathLike[str]) -> list[Check]:
    """Compare an ONNX model with the .safetensors model it was made of: metadata, weights, outputs, a restoration.

    The outputs of ONNX Runtime and OpenVINO in float32 are held against PyTorch with the exported weights, at several
    sizes and batches; how far rounding the weights has moved PyTorch itself is told, not judged. Raises ModelFileError
    for a file that cannot be read or whose weights do not match its own fingerprint.
    """
    exported, source = Path(exported), Path(source)
    info = read_info(exported)
    checks = [compare_metadata(info, read_info(source))]
    checks.append(_compare_weights(load_weights(exported), load_weights(source), info.dtype))
    if all(check.holds for check in checks):
        checks.extend(_compare_outputs(exported, source, info))
    return checks


def compare_metadata(info: ModelInfo, original: ModelInfo) -> Check:
    """Count the keys that differ, but for those that export is meant to change."""
    changed = {"i2sb.dtype", "i2sb.weights_sha256", QUANTIZED, f"{QUANTIZED}_from"}
    pairs = info.to_metadata().items() ^ original.to_metadata().items()
    keys = sorted({key for key, _ in pairs} - changed)
    return Check("metadata", len(keys), 0, "keys", ", ".join(keys))


def _compare_weights(weights: Weights, original: Weights, dtype: str) -> Check:
    """Compare names, shapes, types and bits with those of the original, rounded as the export stores them."""
    wanted = stored_weights(original, dtype)
    names = wanted.keys() | weights.keys()
    wrong = sorted(name for name in names if _bits(weights.get(name)) != _bits(wanted.get(name)))
    return Check("weights", len(wrong), 0, f"of {len(names)} parameters", ", ".join(wrong[:3]))


def _bits(array: NDArray[Any] | None) -> tuple[Any, ...] | None:
    return None if array is None else (array.dtype, array.shape, array.tobytes())


@dataclass(frozen=True)
class _Case:
    """What an engine is asked to do: `rows` of a plan, from x1."""

    kind: str
    rows: F32
    x1: F32
    cond: F32 | None
    clip: bool

    @property
    def label(self) -> str:
        """What a person reads: kind, batch, size and number of calls."""
        batch, _, height, width = self.x1.shape
        calls = "" if self.kind == "network" else f", {len(self.rows)} calls"
        return f"{self.kind} {batch} x {height} x {width}{calls}"


def _compare_outputs(exported: Path, source: Path, info: ModelInfo) -> Iterator[Check]:
    """Compare engine by engine, for the networks of large models do not fit into memory side by side."""

    def native() -> _core.Engine:
        with from_core():
            model = _core.Model(str(exported))
        return open_engine(exported, model, "native", None, "fp32").core

    cases = list(_cases(info))
    wanted, original = (_outputs(engines.pytorch(path).core, cases) for path in (exported, source))
    for case, after, before in zip(cases, wanted, original, strict=True):
        yield _compare(f"{case.label}, rounding of weights", after, before, None)
    others = {"ONNX Runtime": lambda: engines.onnxruntime(exported).core, "OpenVINO": native}
    for name, opened in others.items():
        for case, found, right in zip(cases, _outputs(opened(), cases), wanted, strict=True):
            yield _compare(f"{case.label}, {name}", found, right, TOLERANCES[case.kind])


def _outputs(engine: _core.Engine, cases: Sequence[_Case]) -> list[F32]:
    with from_core():
        return [_core.sample(engine, case.rows, case.x1, clip=case.clip, cond=case.cond) for case in cases]


def verify_typed(exported: Path, precision: str) -> list[Check]:
    """Compare the network that an engine of a precision is built of, see `typed.retyped`, with the exported model.

    Both run in ONNX Runtime, at several sizes and batches, but for bf16, for which it has no kernels. And the types of
    the convolutions and reductions are counted in the network as TensorRT parses it.
    """
    info, typed = read_info(exported), retyped(onnx.load(str(exported)), precision)
    checks = list(_compare_types(typed, precision))
    if precision == "bf16":  # ONNX Runtime has no CPU kernels for it
        return checks
    cases = [case for case in _cases(info) if case.kind == "network"]
    wanted = _outputs(engines.onnxruntime(exported).core, cases)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "typed.onnx"
        onnx.save_model(typed, str(path), save_as_external_data=True, location="typed.data")
        outputs = _outputs(engines.onnxruntime(path).core, cases)
    for case, found, right in zip(cases, outputs, wanted, strict=True):
        checks.append(_compare(f"{case.label}, {precision}", found, right, TYPED_TOLERANCES[precision]))
    return checks


def verify_package(package: Path, source: Path) -> list[Check]:
    """Compare an AOTInductor package with the model file it was made of: metadata, outputs, a restoration.

    The outputs are held against PyTorch with the same weights on a CPU, at several sizes and batches.
    """
    from i2sb_export.aoti import open_package

    info = open_package(package)[0]
    checks = [compare_metadata(info, read_info(source))]
    if checks[0].holds:
        cases = list(_cases(info))
        outputs = [_outputs(opened.core, cases) for opened in (engines.package(package), engines.pytorch(source))]
        for case, found, right in zip(cases, *outputs, strict=True):
            checks.append(_compare(f"{case.label}, AOTInductor", found, right, TOLERANCES[case.kind]))
    return checks


def _compare_types(typed: onnx.ModelProto, precision: str) -> Iterator[Check]:
    """Count the layers of the parsed network that compute in another type than they should."""
    wanted = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[precision]
    layers = layers_of(typed)
    for kind, right in (("CONVOLUTION", wanted), ("REDUCE", "FLOAT")):
        counted = {kept: count for (found, kept), count in layers.counts.items() if found == kind}
        wrong = sum(count for kept, count in counted.items() if kept != right)
        detail = ", ".join(f"{count} in {kept}" for kept, count in sorted(counted.items()))
        yield Check(f"types of {kind.lower()}s", wrong, 0, f"of {sum(counted.values())} layers", detail)
    others = sorted(name for name, kept in layers.ports.items() if kept != "FLOAT")
    yield Check("types of inputs and outputs", len(others), 0, f"of {len(layers.ports)} ports", ", ".join(others))


def _compare(what: str, found: F32, wanted: F32, limit: float | None) -> Check:
    absolute = float(np.abs(found - wanted).max())
    largest = float(np.abs(wanted).max())
    return Check(what, absolute / largest if largest else absolute, limit, "relative", f"{absolute:.1e} absolute")


def _cases(info: ModelInfo) -> Iterator[_Case]:
    """Yield single network calls at several sizes, then a whole restoration of a picture with noise."""
    draw = np.random.default_rng(0)
    side = 1 if info.holds_points else -(-max(info.minimum, 32) // info.multiple) * info.multiple
    step = 0 if info.minimum == info.tile or info.holds_points else info.multiple
    plan = None
    if info.is_dsb:
        fewest = min(info.nfe, _CALLS[1]) if info.prediction in ("drift", "noise") else None
        plan = Plan.dsb(info.gammas, info.direction, fewest, info.prediction)
    for batch, height, width in ((1, side, side), (2, side, side + step), (3, side + 2 * step, side)):
        x = draw.standard_normal((batch, info.channels, height, width), dtype=np.float32)
        t = draw.choice(plan.rows[:, 0]) if plan else draw.uniform(info.t0, info.T) * info.interval
        row = np.array([[t, 0, 1, 0, 1, 0, 0, 0, 0, 0]], np.float32)  # p = 0, q = 1, b = 1: the output itself
        more = info.in_channels - info.channels
        cond = draw.standard_normal((batch, more, height, width), dtype=np.float32) if more else None
        yield _Case("network", row, x, cond, clip=False)
    if plan:
        x = draw.standard_normal((3, info.channels, side, side), dtype=np.float32)
        yield _Case("transport", plan.rows, x, None, clip=False)
    else:
        schedule = Schedule(info.interval, info.beta_max, info.t0, info.T)
        calls = min(max(info.nfe, _CALLS[0]), _CALLS[1], info.interval - 1)
        plan = Plan.posterior(schedule, calls, info.ot_ode or info.sampler == "ode", info.clip, info.prediction)
        x1 = drawn_planes(info.channels, side, side + step, draw)
        beside = [x1] * (info.cond_x1 or info.cond_mask) + [np.zeros_like(x1[:, :1])] * info.cond_mask
        yield _Case("restoration", plan.rows, x1, np.concatenate(beside, 1) if beside else None, info.clip)
