"""Blur a photo and restore it: python examples/deblurring.py MODEL.onnx PHOTO OUT.png [OPERATOR].

MODEL may be `deblur`, which is shipped. OPERATOR is gaussian-2+noise-0.01 by default, or another gaussian-SIGMA, with
noise or without, blur-gauss-exact or blur-uni-exact: these are true blurs. blur-gauss and blur-uni are what published
checkpoints were trained on, and other models do not undo them. OUT shows the blurred photo and the restored one side
by side.
"""

import sys

import numpy as np
from PIL import Image

import i2sb_rt

if not 4 <= len(sys.argv) <= 5:
    sys.exit(__doc__)
model, source, target, *given = sys.argv[1:]
with Image.open(source) as image:
    photo = np.asarray(image.convert("RGB"))
x = photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - 1  # [1, 3, H, W] in [-1, 1]
y = i2sb_rt.operators.get(given[0] if given else "gaussian-2+noise-0.01")(x)
blurred = np.rint((y[0].clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)

restorer = i2sb_rt.load(model)
restored = restorer.restore(blurred)
Image.fromarray(np.hstack([blurred, restored])).save(target)
print(f"{target}: blurred and restored, by {restorer.engine_name} in {restorer.precision}")
