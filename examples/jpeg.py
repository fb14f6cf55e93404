"""Restore a JPEG photo with the shipped model: python examples/jpeg.py examples/photo.jpg restored.png."""

import sys

from PIL import Image

import i2sb_rt

if len(sys.argv) != 3:
    sys.exit(__doc__)
source, target = sys.argv[1:]
restorer = i2sb_rt.load("jpeg")
with Image.open(source) as photo:
    restored = restorer.restore(photo, nfe=1, seed=0)
restored.save(target, icc_profile=restored.info.get("icc_profile"))
print(f"{target}: {restored.width}x{restored.height}, by {restorer.engine_name} in {restorer.precision}")
