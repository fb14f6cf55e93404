"""What tiles change: pictures restored whole and in tiles, and the memory that a large one takes.

python benchmarks/tiles.py agreement PHOTO... [--nfe 1 5] [--tile 256] [--overlap 64] [--difference FILE]
python benchmarks/tiles.py memory [--megapixels 6 24] [--tile 256]

Photos are clean; they are compressed here at JPEG quality 10. The difference picture shows that of the first photo at
the largest NFE, tiled less whole, 16 times enlarged around grey. Memory is measured in a process for each size.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from apart import peak_memory
from PIL import Image

import i2sb_rt
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.jpeg import compress

GAIN = 16


def agreement(options: argparse.Namespace) -> None:
    """Print a table: how near tiled and whole results are to each other and to the clean photo."""
    restorer = i2sb_rt.load(options.model)
    print("| photo | size | NFE | tiled against whole | whole against clean | tiled against clean |")
    print("|---|---|---:|---:|---:|---:|")
    for index, path in enumerate(options.photos):
        with Image.open(path) as image:
            clean = np.asarray(image.convert("RGB"))
        for nfe in options.nfe:
            damaged = compress(clean, 10)
            whole = restorer.restore(damaged, nfe=nfe, tile=0)
            tiled = restorer.restore(damaged, nfe=nfe, tile=options.tile, overlap=options.overlap)
            size = f"{clean.shape[1]} x {clean.shape[0]}"
            figures = " | ".join(f"{psnr(*pair):.2f} dB" for pair in ((tiled, whole), (whole, clean), (tiled, clean)))
            print(f"| {path.stem} | {size} | {nfe} | {figures} |", flush=True)
        if options.difference and index == 0:
            shown = 127.5 + GAIN * (tiled.astype(np.float64) - whole)
            Image.fromarray(np.rint(shown).clip(0, 255).astype(np.uint8)).save(options.difference)


def buffers(pixels: int, cond_x1: bool) -> int:
    """Bytes that the loop holds of the whole picture: its 8-bit input; in fp32 x, o, cond and the tiles' weights."""
    return pixels * (3 + 4 * (3 + 3 + 3 * cond_x1 + 1))


def memory(options: argparse.Namespace) -> None:
    """Print the peak memory of a restore for each size, and what of it is not the picture itself."""
    rest = []
    print("| megapixels | peak memory | of it the picture | the rest | seconds |")
    print("|---:|---:|---:|---:|---:|")
    for megapixels in options.megapixels:
        command = [sys.executable, __file__, "one", "--model", options.model, "--tile", str(options.tile)]
        run = subprocess.run([*command, "--megapixels", str(megapixels)], check=True, capture_output=True, text=True)
        found = json.loads(run.stdout.splitlines()[-1])
        rest.append(found["peak"] - found["picture"])
        cells = f"{found['peak']:.2f} GiB | {found['picture']:.2f} GiB | {rest[-1]:.2f} GiB | {found['seconds']:.0f}"
        print(f"| {megapixels} | {cells} |", flush=True)
    print(f"\nthe rest at the largest size over that at the smallest: {rest[-1] / rest[0]:.2f}")


def one(options: argparse.Namespace) -> None:
    """Restore one picture of 3:2 in this process, and tell its peak memory."""
    import time

    height = round(math.sqrt(options.megapixels[0] * 1e6 / 1.5))
    width = round(options.megapixels[0] * 1e6 / height)
    y, x = np.ogrid[:height, :width]
    picture = np.empty((height, width, 3), np.uint8)
    for plane in range(3):
        picture[..., plane] = (x // (3 + plane)) % 128 + (y // 5) % 128
    restorer = i2sb_rt.load(options.model)
    begin = time.perf_counter()
    restorer.restore(picture, nfe=1, tile=options.tile)
    seconds = time.perf_counter() - begin
    held = buffers(height * width, restorer.info.cond_x1) / 2**30
    print(json.dumps({"peak": peak_memory(), "picture": held, "seconds": seconds}))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("agreement", "memory", "one"))
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    parser.add_argument("--model", default="jpeg")
    parser.add_argument("--nfe", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--difference", type=Path)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[6, 24])
    options = parser.parse_args()
    {"agreement": agreement, "memory": memory, "one": one}[options.work](options)


if __name__ == "__main__":
    main()
