"""Published networks by name: the keyword arguments of `UNet`."""

from typing import Any, Final

# The unconditional network of arXiv 2105.05233 without its learned variance, which arXiv 2302.05872 starts from.
_ADM256: Final[dict[str, Any]] = {
    "image_size": 256,
    "in_channels": 3,
    "model_channels": 256,
    "out_channels": 3,
    "num_res_blocks": 2,
    "attention_resolutions": [8, 16, 32],  # at 32, 16 and 8 pixels
    "channel_mult": [1, 1, 2, 2, 4, 4],
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "adm256": _ADM256,
    "adm256-cond": {**_ADM256, "in_channels": 6},  # sees the degraded image beside the state
}
