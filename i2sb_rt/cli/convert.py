"""i2sb-rt convert: checkpoints of NVlabs/I2SB and guided-diffusion as model files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser(
        "convert",
        help="make a model file of a checkpoint of NVlabs/I2SB (needs the extra `torch`)",
        description="Make a model file of a results folder of NVlabs/I2SB, or of a .pt file of weights.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("source", type=Path, metavar="RESULTS_DIR|FILE.pt", help="what to convert")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.safetensors", help="the model file")
    parser.add_argument(
        "--network",
        metavar="adm256|adm256-cond|FILE.json",
        help="the network (default: adm256, or -cond if cond_x1)",
    )
    parser.add_argument(
        "--dtype", choices=("fp32", "fp16", "bf16"), help="of stored weights (default: fp32; with --export, fp16 there)"
    )
    parser.add_argument("--raw-weights", action="store_true", help="take the last weights, not their mean (EMA)")
    parser.add_argument("--export", action="store_true", help="then export the result to NAME.onnx beside it")
    says = parser.add_argument_group("what the model file says of itself")
    says.add_argument("--name", help="the model's name (default: that of the output)")
    says.add_argument("--task", help="what it undoes, such as jpeg-10 (default: the training's option corrupt)")
    says.add_argument("--license", metavar="TEXT", help="licence of the weights (default: unknown)")
    says.add_argument("--trained-on", metavar="TEXT", help="the data (default: unknown)")
    says.add_argument("--nfe", type=int, metavar="N", help="network calls an image by default (default: 10)")
    says.add_argument(
        "--clip", action=argparse.BooleanOptionalAction, help="clamp estimates to [-1, 1] (default: as in training)"
    )
    bridge = parser.add_argument_group("the bridge, where no options.pkl tells it (FILE.pt)")
    bridge.add_argument("--beta-max", type=float, metavar="X", help="the largest noise rate; needed for a bridge")
    bridge.add_argument("--interval", type=int, metavar="N", help="steps of the schedule (default: 1000)")
    bridge.add_argument("--t0", type=float, metavar="X", help="first time (default: 0.0001)")
    bridge.add_argument("--T", type=float, metavar="X", help="last time (default: 1)")
    for option, text in (
        ("--ot-ode", "trained without noise in the bridge"),
        ("--cond-x1", "the network sees the degraded image too"),
        ("--add-x1-noise", "noise is added to the degraded image first"),
    ):
        bridge.add_argument(option, action="store_true", default=None, help=text)


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli import main, stdout
    from i2sb_rt.cli.report import printable
    from i2sb_rt.conversion.convert import BRIDGE, INITIALISATION, Request, convert
    from i2sb_rt.errors import UsageError

    given = {key: getattr(options, key) for key in BRIDGE if getattr(options, key) is not None}
    request = Request(
        network=options.network, dtype=options.dtype or "fp32", name=options.name, task=options.task,
        license=options.license, trained_on=options.trained_on, nfe=options.nfe, raw_weights=options.raw_weights,
        bridge=given,
    )  # fmt: skip
    if options.export and not options.source.is_dir() and "beta_max" not in given:
        raise UsageError(f"{options.source} is no bridge without --beta-max, so there is nothing to --export.")
    info = convert(options.source, options.output, request)
    size = options.output.stat().st_size / 2**20
    name = printable(str(options.output))
    stdout.say(f"{name}: {info.name}, {info.dtype}, {size:.1f} MiB, weights {info.weights_sha256[:16]}")
    if info.task == INITIALISATION:
        stdout.say("It is a diffusion model, not a bridge: it restores nothing; `i2sb-rt train --init` starts from it.")
    else:
        noise = "without noise (ot_ode)" if info.ot_ode else f"beta_max {info.beta_max:g}"
        stdout.say(f"A bridge for {info.task}: {noise}, {info.tile} x {info.tile} pixels, license {info.license}")
    if not options.export:
        return 0
    dtype = "fp32" if options.dtype == "fp32" else "fp16"
    return main(["export", str(options.output), "-o", str(options.output.with_suffix(".onnx")), "--dtype", dtype])
