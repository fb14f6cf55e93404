"""What a model says of itself: flat text metadata, read, checked and written."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from i2sb_rt.errors import ModelFileError

PREFIX: Final = "i2sb."
BRIDGE_SAMPLERS: Final = ("sde", "ode", "dbim1", "dbim2", "dbim3", "i3sb")
SAMPLERS: Final = (*BRIDGE_SAMPLERS, "dsb")
DTYPES: Final = ("fp32", "fp16", "bf16")
UNHASHED: Final = "0" * 64
QUANTIZED: Final = PREFIX + "quantized"  # of files whose convolutions compute in 8 bits: "int8"

_BRIDGE_KEYS: Final = frozenset({"interval", "beta_max", "t0", "T", "ot_ode", "cond_mask", "fill"})
_DSB_KEYS: Final = frozenset({"gammas", "direction", "prior"})
# Keys that files may lack, and do where they have these values.
_LATER: Final = {"cond_mask": False, "fill": "noise", "prior": 0.0}
_LARGEST: Final = 2**31 - 1
_LARGEST_MINIMUM: Final = 11313  # the side of a square of at most image.MAX_PIXELS; the core has it too


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model demands and how it was made: the metadata of a model file, one field a key.

    A bridge with a schedule (every sampler but `dsb`) sets interval, beta_max, t0, T, ot_ode; a DSB model sets gammas,
    direction and prior in their place. The keys of the other kind keep their defaults and are not written. What each
    means stands in docs/model_files.md. Raises ModelFileError, naming the key, for a value out of range.
    """

    format: int = 1
    name: str
    task: str
    prediction: str = "noise"
    interval: int = 0
    beta_max: float = 0.0
    t0: float = 0.0
    T: float = 0.0
    ot_ode: bool = False
    gammas: tuple[float, ...] = ()
    direction: str = ""
    prior: float = 0.0
    cond_x1: bool = False
    add_x1_noise: bool = False
    cond_mask: bool = False
    fill: str = "noise"
    clip: bool = False
    channels: int = 3
    upscale: int = 1
    multiple: int
    minimum: int
    tile: int
    overlap: int
    batch: int = 1
    sampler: str = "sde"
    nfe: int
    dtype: str = "fp32"
    network: Mapping[str, Any]
    trained_on: str
    license: str
    weights_sha256: str = UNHASHED
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gammas", tuple(self.gammas))
        object.__setattr__(self, "extra", dict(self.extra))
        try:  # What JSON cannot tell apart (lists and tuples) is made equal here.
            object.__setattr__(self, "network", json.loads(json.dumps(dict(self.network), allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"i2sb.network must be a JSON object ({error}).") from None
        for key, holds, right in _rules(self):
            if not holds:
                raise ModelFileError(f"{PREFIX}{key} is {_shown(getattr(self, key))}, but must be {right}.")

    @property
    def is_dsb(self) -> bool:
        """Whether this is a DSB model: gammas and a direction in place of a schedule."""
        return self.sampler == "dsb"

    @property
    def holds_points(self) -> bool:
        """Whether the states are points, not images: they have one pixel, and a channel a coordinate."""
        return "mlp" in self.network

    def noise_seed(self, seed: int) -> int:
        """Return the seed that noise is drawn with: forward along a DSB model the highest of its 64 bits is flipped.

        So what goes there and back again with one seed does not meet the same noise twice.
        """
        return seed ^ 1 << 63 if self.direction == "forward" else seed

    @property
    def is_quantized(self) -> bool:
        """Whether this model computes in 8 bits, which the engine native alone does."""
        return QUANTIZED in self.extra

    @property
    def fills_holes(self) -> bool:
        """Whether this model inpaints: its task begins with `inpaint`."""
        return self.task.startswith("inpaint")

    @property
    def in_channels(self) -> int:
        """Channels of the network's input: the state's, and those of cond where the model asks for it.

        With cond_x1 that is x1; with cond_mask x1 with zeros in the hole, and the mask.
        """
        return self.channels * (2 if self.cond_x1 or self.cond_mask else 1) + int(self.cond_mask)

    @classmethod
    def kinds(cls, dsb: bool) -> dict[str, Any]:
        """Return the keys a model carries, in the order of the fields, each with its type."""
        left_out = {"extra", *(_BRIDGE_KEYS if dsb else _DSB_KEYS)}
        return {f.name: f.type for f in fields(cls) if f.name not in left_out}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> "ModelInfo":
        """Read flat text metadata; keys outside `i2sb.` are ignored, unknown ones inside it kept in `extra`.

        source: the file's name, for messages. Raises ModelFileError for a missing key or a wrong value, by name.
        """
        kinds = cls.kinds(dsb=metadata.get(PREFIX + "sampler") == "dsb")
        for key in ("format", "sampler", *kinds):
            if key in _LATER and PREFIX + key not in metadata:
                kinds.pop(key)
            elif PREFIX + key not in metadata:
                raise ModelFileError(f"{source}: the metadata lack the key {PREFIX}{key}; is this an i2sb-rt model?")
        values: dict[str, Any] = {}
        for key, kind in kinds.items():
            text = metadata[PREFIX + key]
            parse, right = _READERS[kind]
            try:
                values[key] = parse(text)
            except (ValueError, RecursionError):
                raise ModelFileError(f"{source}: {PREFIX}{key} is {_shown(text)}, but must be {right}.") from None
        known = {PREFIX + key for key in values}
        values["extra"] = {k: v for k, v in metadata.items() if k.startswith(PREFIX) and k not in known}
        try:
            return cls(**values)
        except ModelFileError as error:
            raise ModelFileError(f"{source}: {error}") from None

    def to_metadata(self) -> dict[str, str]:
        """Flat text metadata, the exact inverse of `from_metadata`."""
        kinds = {key: kind for key, kind in self.kinds(self.is_dsb).items() if getattr(self, key) != _LATER.get(key)}
        return {**{PREFIX + key: _WRITERS[kind](getattr(self, key)) for key, kind in kinds.items()}, **self.extra}


_Rule = tuple[str, bool, str]  # the key, whether its rule holds, what would be right


def _rules(info: ModelInfo) -> Iterator[_Rule]:
    """Yield every demand on the values: key, whether it holds, what would be right."""
    label = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    yield "format", info.format == 1, "1, the only format this release reads (a newer release may read others)"
    for key in ("name", "task"):
        right = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
        yield key, label.fullmatch(getattr(info, key)) is not None, right
    for key in ("trained_on", "license"):
        text = getattr(info, key)
        yield key, bool(text.strip()) and text.isprintable(), "one line of text"
    yield "sampler", info.sampler in SAMPLERS, f"one of {', '.join(SAMPLERS)}"
    yield "dtype", info.dtype in DTYPES, f"one of {', '.join(DTYPES)}"
    yield "weights_sha256", re.fullmatch(r"[0-9a-f]{64}", info.weights_sha256) is not None, "64 hexadecimal digits"
    yield from _process_rules(info)
    yield from _size_rules(info)
    yield from _network_rules(info)
    known = {PREFIX + key for key in info.kinds(info.is_dsb)}
    foreign = all(key.startswith(PREFIX) and key not in known for key in info.extra)
    yield "extra", foreign, f"keys that begin with {PREFIX} and have no field of their own"


def _process_rules(info: ModelInfo) -> Iterator[_Rule]:
    if info.is_dsb:
        sound = 0 < len(info.gammas) <= 1_000_000 and all(1e-12 <= gamma <= 1e12 for gamma in info.gammas)
        yield "gammas", sound, "decimals from 1e-12 to 1e12 separated by commas, one a step"
        yield "direction", info.direction in ("forward", "backward"), "forward or backward"
        kinds = ("drift", "noise", "mean", "residual")
        yield "prediction", info.prediction in kinds, f"one of {', '.join(kinds)} for the sampler dsb"
        yield "prior", 0 <= info.prior < math.inf, "0 or more"
        yield "clip", not info.clip, "0 for the sampler dsb, whose states are no images until the end"
        yield "nfe", 1 <= info.nfe <= len(info.gammas), f"from 1 to the number of gammas, {len(info.gammas)}"
        whole = info.prediction in ("drift", "noise") or info.nfe == len(info.gammas)
        yield (
            "nfe",
            whole,
            f"{len(info.gammas)}, the number of gammas, for a network that predicts the {info.prediction}",
        )
        for key in sorted(_BRIDGE_KEYS):
            yield key, getattr(info, key) in (0, _LATER.get(key)), "left out for the sampler dsb"
        return
    yield "cond_mask", not info.cond_mask or info.fills_holes, "0 for a model whose task is not to fill holes"
    yield "fill", info.fill in ("noise", "smooth"), "noise or smooth"
    yield "fill", info.fill == "noise" or info.fills_holes, "noise for a model whose task is not to fill holes"
    yield "cond_mask", not (info.cond_mask and info.cond_x1), "0 with cond_x1"
    yield "prediction", info.prediction in ("noise", "mean"), "noise or mean for every sampler but dsb"
    yield "interval", 2 <= info.interval <= 1_000_000 and info.interval % 2 == 0, "an even number from 2 to 1000000"
    yield "beta_max", 0 < info.beta_max < math.inf, "above 0"
    yield "t0", 0 <= info.t0 < math.inf, "0 or more"
    yield "T", info.t0 < info.T < math.inf, f"above t0, which is {info.t0!r}"
    yield "nfe", 1 <= info.nfe < info.interval, f"from 1 to {info.interval - 1}, one less than the interval"
    legal = not info.ot_ode or info.sampler == "ode"
    yield "sampler", legal, "ode, the one without noise, for the bridge was trained without (ot_ode)"
    for key in sorted(_DSB_KEYS):
        yield key, not getattr(info, key), "left out for every sampler but dsb"


def _size_rules(info: ModelInfo) -> Iterator[_Rule]:
    for key in ("channels", "upscale", "multiple", "minimum", "tile", "batch"):
        yield key, 1 <= getattr(info, key) <= _LARGEST, "at least 1"
    grain = math.lcm(info.multiple, 16)
    yield "minimum", info.minimum % info.multiple == 0, f"a multiple of i2sb.multiple, {info.multiple}"
    yield "minimum", info.minimum <= _LARGEST_MINIMUM, f"at most {_LARGEST_MINIMUM}"
    yield "tile", info.tile % grain == 0, f"a multiple of {grain} (the common multiple of i2sb.multiple and 16)"
    yield "tile", info.tile >= info.minimum, f"at least i2sb.minimum, {info.minimum}"
    yield "overlap", info.overlap >= 0 and info.overlap % grain == 0, f"0 or a multiple of {grain}"
    yield "overlap", info.overlap <= info.tile - grain, f"at most i2sb.tile less {grain}, {info.tile - grain}"


def _network_rules(info: ModelInfo) -> Iterator[_Rule]:
    network = info.network
    if set(network) == {"mlp"}:
        sound = isinstance(network["mlp"], dict) and network["mlp"].get("dim") == info.channels
        yield "network", sound, f'a JSON object like {{"mlp": {{...}}}} with dim = {info.channels}, the channels'
        yield "multiple", (info.multiple, info.minimum) == (1, 1), "1, like i2sb.minimum, for points"
        return
    wanted = {"in_channels": info.in_channels, "out_channels": info.channels}
    for key, count in wanted.items():
        yield (
            "network",
            network.get(key) == count,
            f"a network with {key} = {count}, as channels, cond_x1 and cond_mask say",
        )
    patch, levels = network.get("patch", 1), network.get("channel_mult", [1, 2, 4, 8])
    sound = isinstance(patch, int) and 1 <= patch <= 64 and isinstance(levels, list) and 1 <= len(levels) <= 12
    yield "network", sound, "a U-Net of patch 1 to 64 and of 1 to 12 levels in channel_mult"
    grain = patch * 2 ** (len(levels) - 1)
    yield "multiple", info.multiple % grain == 0, f"a multiple of {grain}, the block that the network divides by"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_int(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST:
        raise ValueError(text)
    return int(text)


def _read_float(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError(text)
    return float(text)


def _read_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


def _read_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


_READERS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    int: (_read_int, "a whole number from 0 to 2147483647"),
    float: (_read_float, "a decimal number, 0 or more, such as 0.3"),
    bool: (_read_flag, "0 or 1"),
    str: (str, "text"),
    tuple[float, ...]: (lambda text: tuple(map(_read_float, text.split(","))), "decimal numbers separated by commas"),
    Mapping[str, Any]: (_read_object, "a JSON object"),
}
_WRITERS: Final[dict[Any, Callable[[Any], str]]] = {
    int: str,
    float: lambda value: repr(float(value)),
    bool: lambda value: str(int(value)),
    str: str,
    tuple[float, ...]: lambda values: ",".join(repr(float(value)) for value in values),
    Mapping[str, Any]: lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
}
