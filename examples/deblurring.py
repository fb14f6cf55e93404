"""Blur a photo and restore it: python examples/deblurring.py MODEL.onnx PHOTO OUT.png [OPERATOR].

OPERATOR is blur-gauss (what a published checkpoint was trained on), blur-gauss-exact, blur-uni or blur-uni-exact.
OUT shows the blurred photo and the restored one side by side.
"""

import sys

import numpy as np
from PIL import Image

import i2sb_rt

model, source, target, *given = sys.argv[1:]
with Image.open(source) as image:
    photo = np.asarray(image.convert("RGB"))
x = photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - 1  # [1, 3, H, W] in [-1, 1]
y = i2sb_rt.operators.get(given[0] if given else "blur-gauss")(x)
blurred = np.rint((y[0].clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)

restorer = i2sb_rt.load(model)
restored = restorer.restore(blurred)
Image.fromarray(np.hstack([blurred, restored])).save(target)
print(f"{target}: blurred and restored, by {restorer.engine_name} in {restorer.precision}")
