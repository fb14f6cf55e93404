"""What tests of commands look at: the pictures and the files that are there."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def everything() -> list[str]:
    """Every file below the working folder, sorted."""
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())
