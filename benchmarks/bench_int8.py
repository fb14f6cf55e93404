"""One network call in 8 bits beside fp32 and bf16, all by the native engine; where that has no bf16, by PyTorch.

It is calibrated with sample photos of scikit-image, and timed only if a restored picture hardly changes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from i2sb_export.int8 import quantized
from i2sb_rt import Restorer, _core, load
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators import of_task

LEAST = 40.0  # dB between the pictures that both restore
EMULATED = (
    128 * 128
)  # pixels of the largest case for PyTorch's bf16, which takes a hundred times as long on a CPU without


@pytest.fixture(scope="module")
def int8_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in 8 bits."""
    folder = tmp_path_factory.mktemp("int8")
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    path = folder / model_path.name
    path.write_bytes(quantized(model_path, sorted(folder.glob("*.png"))).SerializeToString(deterministic=True))
    return path


@pytest.mark.parametrize(("height", "width"), [(128, 128), (512, 512), (512, 768)])
def test_int8(beside: Any, benchmark: Any, model_path: Path, int8_path: Path, height: int, width: int) -> None:
    ours, floats = load(int8_path), {"fp32": load(model_path, precision="fp32")}
    auto = load(model_path)
    if auto.precision == "bf16":
        floats["bf16"] = auto
    damaged = of_task(ours.info.task)[0]
    clean = skimage.data.rocket()[:height:2, :width:2]
    x = damaged(np.moveaxis(clean, 2, 0)[None].astype(np.float32) / 127.5 - 1)
    picture = np.rint((np.moveaxis(x[0], 0, 2) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    apart = psnr(floats["fp32"].restore(picture), ours.restore(picture))
    assert apart > LEAST, f"not timed: the pictures are {apart:.1f} dB apart"
    state = np.random.default_rng(0).uniform(-1, 1, (1, ours.info.channels, height, width)).astype(np.float32)
    row = np.zeros((1, 10), np.float32)
    row[0, [0, 2, 4]] = ours.plan().rows[0, 0], 1, 1  # x' = x0 = what the network says

    def call_of(restorer: Restorer) -> Any:
        cond = state if restorer.info.cond_x1 else None
        return lambda: _core.sample(restorer.engine.core, row, state, cond=cond, network_batch=1)

    sizes = {"file [bytes]": int8_path.stat().st_size, "fp32's [bytes]": model_path.stat().st_size}
    benchmark.extra_info |= {"model": ours.info.name, "agreement [dB]": apart, **sizes}
    baselines = {f"native {precision}": call_of(restorer) for precision, restorer in floats.items()}
    if "bf16" not in floats and height * width <= EMULATED:
        baselines["PyTorch bf16"] = call_of(load(model_path, engine="torch", precision="bf16"))
    beside(call_of(ours), baselines, budget=30.0)
