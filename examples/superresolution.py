"""Enlarge a photo: python examples/superresolution.py MODEL.onnx SMALL OUT.png [SAMPLER NFE]."""

import sys

from PIL import Image

import i2sb_rt

if len(sys.argv) not in (4, 6):
    sys.exit(__doc__)
model, source, target, *choice = sys.argv[1:]
sampler, nfe = (choice[0], int(choice[1])) if choice else (None, None)  # None is the model's own
restorer = i2sb_rt.load(model)
with Image.open(source) as small:
    large = restorer.restore(small, sampler=sampler, nfe=nfe)
large.save(target)
print(f"{target}: {large.width}x{large.height}, by {restorer.engine_name} in {restorer.precision}")
