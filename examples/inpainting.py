"""Fill holes: python examples/inpainting.py MODEL.onnx PHOTO OUT.png [MASK.png].

Without a mask, brush strokes over a tenth to a fifth of the photo are torn out of it, for a trial.
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
if given:
    with Image.open(given[0]) as image:
        hole = np.asarray(image.convert("L")) >= 128  # white is the hole
else:
    hole = i2sb_rt.operators.freeform_mask(*photo.shape[:2], 0.1, 0.2, seed=0)

restorer = i2sb_rt.load(model)
filled = restorer.restore(photo, mask=hole, seed=0)  # a model that begins with noise fills otherwise for another seed
assert (filled[~hole] == photo[~hole]).all()  # what is known comes back bit for bit
Image.fromarray(filled).save(target)
print(f"{target}: {np.count_nonzero(hole)} of {hole.size} pixels filled, by {restorer.engine_name}")
