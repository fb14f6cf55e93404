"""What a file may ask of a network, so that none of absurd size is built."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from i2sb_rt.errors import ModelFileError

_LARGEST: Final = 64 * 1024  # of any number
_MOST: Final = {"num_res_blocks": 64, "patch": 64}
_LONGEST: Final = 12  # lists: a level halves the sides


def check_config(config: Mapping[str, Any], source: object) -> None:
    """Check every keyword argument of UNet; source: what the error names. Raises ModelFileError."""
    from i2sb_rt.networks import UNet

    known = inspect.signature(UNet).parameters
    for key, value in config.items():
        if key not in known:
            raise ModelFileError(f"{source}: {key} is no argument of UNet; its arguments are {', '.join(known)}.")
        if "bool" in str(known[key].annotation):
            holds, right = isinstance(value, bool), "true or false"
        elif "Sequence" in str(known[key].annotation):
            holds = isinstance(value, list) and len(value) <= _LONGEST and all(_is_count(v, _LARGEST) for v in value)
            right = f"a list of at most {_LONGEST} numbers from 1 to {_LARGEST}"
        else:
            most = _MOST.get(key, _LARGEST)
            holds, right = _is_count(value, most), f"a number from 1 to {most}"
        if not holds:
            raise ModelFileError(f"{source}: {key} must be {right}.")


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
