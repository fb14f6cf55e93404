"""Checkpoints of NVlabs/I2SB as model files; what must not be read is in test_convert_hostile.py."""

import argparse
import contextlib
import io
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from i2sb_rt.cli import convert as convert_parser  # noqa: E402
from i2sb_rt.cli import main  # noqa: E402
from i2sb_rt.model_file import load_weights, read_info  # noqa: E402
from i2sb_rt.networks import UNet  # noqa: E402
from i2sb_rt.networks.loading import load_network  # noqa: E402
from i2sb_rt.networks.presets import PRESETS  # noqa: E402

ROOT = Path(__file__).parents[2]
OPTIONS = (ROOT / "tests" / "data" / "nvlabs_options.pkl").read_bytes()
MICRO: dict[str, Any] = {
    "image_size": 16, "in_channels": 3, "model_channels": 16, "out_channels": 3, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 1], "num_head_channels": 8,
}  # fmt: skip
FILES = ["--network", "micro.json", "-o", "out.safetensors"]


def network(seed: int, **changes: Any) -> UNet:
    """A micro network with every weight drawn."""
    torch.manual_seed(seed)
    net = UNet(**{**MICRO, **changes}).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return net


def checkpoint(net: UNet, mean: UNet, prefix: str = "diffusion_model.") -> dict[str, Any]:
    """What is saved of a training: the last weights by name, their mean as a list, and what goes on with it."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-5)
    sum(parameter.sum() for parameter in net.parameters()).backward()
    optimizer.step()
    names = OrderedDict((prefix + name, tensor) for name, tensor in net.state_dict().items())
    names._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as state_dict has it
    shadow = [parameter.detach().clone() for parameter in mean.parameters()]
    ema = {"decay": 0.99, "num_updates": 1, "shadow_params": shadow, "collected_params": None}
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000, 0.99)
    return {"net": names, "ema": ema, "optimizer": optimizer.state_dict(), "sched": scheduler.state_dict()}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("micro.json").write_text(json.dumps(MICRO))


@pytest.fixture
def mean() -> UNet:
    return network(1)


@pytest.fixture
def saved(mean: UNet) -> dict[str, Any]:
    return checkpoint(network(0), mean)


@pytest.fixture
def results(saved: dict[str, Any]) -> Callable[..., Path]:
    """Write a results folder: results(beta_max=..) with other options, results(net=..) with another checkpoint."""

    def make(state: dict[str, Any] | None = None, drop: tuple[str, ...] = (), **options: Any) -> Path:
        folder = Path("results")
        folder.mkdir(exist_ok=True)
        namespace = pickle.loads(OPTIONS)
        vars(namespace).update(options)
        for key in drop:
            delattr(namespace, key)
        (folder / "options.pkl").write_bytes(pickle.dumps(namespace) if options or drop else OPTIONS)
        torch.save(saved if state is None else state, folder / "latest.pt")
        return folder

    return make


def same_output(found: torch.nn.Module, wanted: torch.nn.Module, tolerance: float) -> None:
    torch.manual_seed(2)
    x, t = torch.randn(2, wanted.in_channels, 16, 24), torch.tensor([3.5, 999.0])
    with torch.no_grad():
        y, expected = found(x, t), wanted(x, t)
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 0), ("fp16", 2e-3), ("bf16", 2e-2)])
def test_the_result_is_the_network_of_the_mean_weights(
    results: Callable[..., Path], mean: UNet, dtype: str, tolerance: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(results()), *FILES, "--dtype", dtype]) == 0
    same_output(load_network("out.safetensors"), mean, tolerance)
    out = capsys.readouterr().out
    assert read_info("out.safetensors").weights_sha256[:16] in out
    assert "jpeg-10" in out


def test_raw_weights_are_those_by_name(results: Callable[..., Path]) -> None:
    assert main(["convert", str(results()), *FILES, "--raw-weights"]) == 0
    same_output(load_network("out.safetensors"), load_raw(), 0)
    assert read_info("out.safetensors").extra["i2sb.source.weights"] == "net"


def load_raw() -> UNet:
    net = network(0)
    state = torch.load("results/latest.pt")["net"]
    net.load_state_dict({name.removeprefix("diffusion_model."): tensor for name, tensor in state.items()})
    return net


def test_weights_that_share_memory_are_told_apart(results: Callable[..., Path], mean: UNet) -> None:
    state = checkpoint(network(0), mean)
    shadow = state["ema"]["shadow_params"]
    like = [number for number, weight in enumerate(shadow) if weight.shape == (16,)]
    shadow[like[1]] = shadow[like[0]]
    shadow[like[2]] = shadow[like[0]][:1].expand(16)
    assert main(["convert", str(results(state)), *FILES]) == 0
    found = list(load_network("out.safetensors").parameters())
    assert torch.equal(found[like[1]], shadow[like[0]])
    assert torch.equal(found[like[2]], shadow[like[0]][:1].expand(16))


@pytest.mark.parametrize("prefix", ["", "module.", "module.diffusion_model."])
def test_wrappers_leave_no_trace(results: Callable[..., Path], mean: UNet, prefix: str) -> None:
    state = checkpoint(network(0), mean, prefix)
    assert main(["convert", str(results(state)), *FILES]) == 0
    same_output(load_network("out.safetensors"), mean, 0)


def test_the_file_says_what_the_options_say(results: Callable[..., Path]) -> None:
    assert main(["convert", str(results()), *FILES]) == 0
    info = read_info("out.safetensors")
    assert (info.name, info.task, info.sampler, info.nfe, info.prediction) == ("out", "jpeg-10", "sde", 10, "noise")
    assert (info.interval, info.beta_max, info.t0, info.T) == (1000, 0.3, 1e-4, 1.0)
    assert not any((info.ot_ode, info.cond_x1, info.add_x1_noise, info.clip))
    assert (info.multiple, info.minimum, info.tile, info.overlap, info.batch, info.upscale) == (2, 16, 16, 0, 1, 1)
    assert info.network == MICRO
    assert info.license == info.trained_on == "unknown: see where the checkpoint came from"
    assert info.extra["i2sb.source.lr"] == "5e-05"
    assert info.extra["i2sb.source.num_itr"] == "1000000"
    assert info.extra["i2sb.source.weights"] == "ema"


def test_a_bridge_without_noise_that_sees_its_start(results: Callable[..., Path]) -> None:
    Path("micro.json").write_text(json.dumps({**MICRO, "in_channels": 6}))
    mean = network(1, in_channels=6)
    facts = {"ot_ode": True, "cond_x1": True, "beta_max": 1, "clip_denoise": True, "interval": 8, "corrupt": "blur-uni"}
    folder = results(checkpoint(network(0, in_channels=6), mean), **facts)
    assert main(["convert", str(folder), *FILES]) == 0
    info = read_info("out.safetensors")
    assert (info.sampler, info.ot_ode, info.cond_x1, info.beta_max) == ("ode", True, True, 1.0)
    assert (info.clip, info.nfe, info.task) == (True, 7, "blur-uni")
    same_output(load_network("out.safetensors"), mean, 0)


def test_what_the_user_says_holds(results: Callable[..., Path]) -> None:
    says = ["--name", "mine", "--task", "jpeg", "--license", "CC-BY-4.0", "--trained-on", "my photos", "--nfe", "3"]
    assert main(["convert", str(results(clip_denoise=True)), *FILES, *says, "--no-clip"]) == 0
    info = read_info("out.safetensors")
    assert (info.name, info.task, info.license, info.trained_on) == ("mine", "jpeg", "CC-BY-4.0", "my photos")
    assert (info.nfe, info.clip) == (3, False)


def test_no_secret_and_no_path_of_the_machine_gets_into_the_file(results: Callable[..., Path]) -> None:
    hidden = {
        key: "hidden-" + key
        for key in ("wandb_api_key", "wandb_user", "master_address", "ckpt", "load", "device", "some_new_token")
    }
    paths = {key: PurePosixPath("/home/hidden", key) for key in ("dataset_dir", "log_dir", "ckpt_path")}
    assert main(["convert", str(results(**hidden, **paths, seed="/home/hidden")), *FILES]) == 0
    data = Path("out.safetensors").read_bytes()
    assert b"hidden" not in data
    assert b"results" not in data
    assert str(Path.cwd()).encode() not in data


def test_export_makes_what_restores(results: Callable[..., Path]) -> None:
    pytest.importorskip("onnxscript")
    from i2sb_rt import load

    assert main(["convert", str(results()), *FILES, "--export", "--dtype", "fp32"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["micro.json", "out.onnx", "out.safetensors", "results"]
    source, exported = load_weights("out.safetensors"), load_weights("out.onnx")
    assert all(np.array_equal(source[name], exported[name]) for name in source)
    picture = np.full((16, 16, 3), 100, np.uint8)
    assert load("out.onnx", precision="fp32").restore(picture, nfe=1).shape == picture.shape


@pytest.mark.parametrize("saving", ["state", "latest"])
def test_a_file_of_weights_with_the_bridge_on_the_command_line(mean: UNet, saved: dict[str, Any], saving: str) -> None:
    torch.save(mean.state_dict() if saving == "state" else saved, "weights.pt")
    bridge = ["--beta-max", "1", "--interval", "100", "--t0", "0.001", "--T", "2", "--ot-ode", "--clip"]
    assert main(["convert", "weights.pt", *FILES, *bridge, "--task", "blur"]) == 0
    info = read_info("out.safetensors")
    assert (info.beta_max, info.interval, info.t0, info.T) == (1.0, 100, 0.001, 2.0)
    assert (info.ot_ode, info.clip, info.cond_x1, info.add_x1_noise, info.sampler) == (True, True, False, False, "ode")
    assert info.extra.get("i2sb.source.weights") == (None if saving == "state" else "ema")
    same_output(load_network("out.safetensors"), mean, 0)


@pytest.mark.parametrize("channels", [3, 6])
def test_a_diffusion_model_becomes_an_initialisation(channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(network(1, out_channels=channels).state_dict(), "adm.pt")
    assert main(["convert", "adm.pt", *FILES]) == 0
    assert "not a bridge" in capsys.readouterr().out
    info = read_info("out.safetensors")
    assert info.task == "initialisation"
    assert "not a bridge" in info.extra["i2sb.source.note"]
    weights, wanted = load_weights("out.safetensors"), network(1, out_channels=channels).state_dict()
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, wanted[name].numpy()[:3] if "out.2" in name else wanted[name].numpy())


def test_weights_in_half_precision_and_the_times_beside_them(results: Callable[..., Path], mean: UNet) -> None:
    state = checkpoint(network(0), mean)
    state["net"]["noise_levels"] = torch.linspace(1e-4, 1, 1000) * 1000
    state["ema"]["shadow_params"] = [weight.half() for weight in state["ema"]["shadow_params"]]
    assert main(["convert", str(results(state)), *FILES]) == 0
    same_output(load_network("out.safetensors"), mean.half().float(), 0)


def test_the_presets_are_the_published_networks() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in UNet(**config).parameters()) for name, config in PRESETS.items()}
    assert counts == {"adm256": 552_807_171, "adm256-cond": 552_807_171 + 3 * 9 * 256}


Change = Callable[[dict[str, Any]], None]


def _swap(state: dict[str, Any]) -> None:
    """Save two parameters of one shape in another order, which the list of means cannot show."""
    net = state["net"]
    net.move_to_end("diffusion_model.time_embed.0.bias")


REFUSED: dict[str, tuple[Change, str]] = {
    "no net": (lambda s: s.pop("net"), "lacks the key net"),
    "no ema": (lambda s: s.pop("ema"), "ema is of type NoneType"),
    "no list": (lambda s: s["ema"].pop("shadow_params"), "no list shadow_params"),
    "too few": (lambda s: s["ema"]["shadow_params"].pop(), "tensors, but the network has"),
    "too many": (lambda s: s["ema"]["shadow_params"].append(torch.zeros(1)), "tensors, but the network has"),
    "another shape": (
        lambda s: s["ema"]["shadow_params"].__setitem__(2, torch.zeros(7)),
        r"shadow_params[2] is (7,), but time_embed.2.weight, whose mean it must be, is (64, 64)",
    ),
    "no tensor": (lambda s: s["ema"]["shadow_params"].__setitem__(0, 1.5), "shadow_params[0] is of type float"),
    "another order": (_swap, "another order"),
    "a name too many": (
        lambda s: s["net"].__setitem__("diffusion_model.label_emb.weight", torch.zeros(10, 64)),
        "label_emb.weight is (10, 64) in the file, but not part of the network",
    ),
    "a name missing": (lambda s: s["net"].pop("diffusion_model.out.2.bias"), "out.2.bias is missing in the file"),
    "a number among weights": (
        lambda s: s["net"].__setitem__("diffusion_model.out.2.bias", 3),
        "diffusion_model.out.2.bias is of type int",
    ),
    "integers": (
        lambda s: s["net"].__setitem__("diffusion_model.out.2.bias", torch.zeros(3, dtype=torch.int64)),
        "is of torch.int64, but a weight is float32",
    ),
    "float64": (lambda s: s["ema"]["shadow_params"].__setitem__(0, torch.zeros(64, 16).double()), "torch.float64"),
    "other times": (lambda s: s["net"].__setitem__("noise_levels", torch.arange(1000.0)), "noise_levels are not"),
    "times of another number": (lambda s: s["net"].__setitem__("noise_levels", torch.zeros(3)), "noise_levels are not"),
    "a list for net": (lambda s: s.__setitem__("net", [torch.zeros(3)]), "net is of type list"),
    "not finite": (lambda s: s["ema"]["shadow_params"][3].fill_(torch.nan), "time_embed.2.bias is not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    results: Callable[..., Path], saved: dict[str, Any], case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = REFUSED[case]
    change(saved)
    assert main(["convert", str(results(saved)), *FILES]) == 5
    refused(capsys, words)


def refused(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """One sentence with these words, and no file."""
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    assert not list(Path().glob("*.safetensors"))
    assert not list(Path().glob(".*.part"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": 7}, "i2sb.interval is 7, but must be an even number"),
        ({"interval": "1000"}, "the option interval is of type str, but must be int"),
        ({"interval": True}, "the option interval is of type bool"),
        ({"beta_max": -1.0}, "i2sb.beta_max is -1.0"),
        ({"beta_max": float("nan")}, "i2sb.beta_max is nan"),
        ({"beta_max": 10**400}, "the option beta_max is of type int"),
        ({"beta_max": [0.3]}, "the option beta_max is of type list"),
        ({"T": float("inf")}, "i2sb.T is inf"),
        ({"ot_ode": 1}, "the option ot_ode is of type int, but must be bool"),
    ],
)
def test_options_that_are_no_bridge(
    results: Callable[..., Path], options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(results(**options)), *FILES]) == 5
    refused(capsys, words)


@pytest.mark.parametrize("key", ["interval", "beta_max", "t0", "T", "ot_ode", "cond_x1", "add_x1_noise"])
def test_an_option_that_is_missing(results: Callable[..., Path], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(results(drop=(key,))), *FILES]) == 5
    refused(capsys, f"lacks the option {key}")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["results", "-o", "out.onnx"], 2, "ends in .safetensors"),
        (["results", "-o", "out"], 2, "ends in .safetensors"),
        (["results", "-o", "gone/out.safetensors"], 4, "gone is not a folder"),
        (["gone", "-o", "out.safetensors"], 5, "gone: there is no such folder or file"),
        (["results", "-o", "out.safetensors"], 2, "give --network"),
        (["results", *FILES, "--network", "adm"], 2, "'adm'"),
        (["results", *FILES, "--network", "gone.json"], 5, "gone.json cannot be read"),
        (["results", *FILES, "--network", "bad.json"], 5, "bad.json is no JSON file"),
        (["results", *FILES, "--network", "list.json"], 5, "must hold a JSON object"),
        (["results", *FILES, "--network", "typo.json"], 5, "num_res_block is no argument of UNet"),
        (["results", *FILES, "--network", "large.json"], 5, "num_res_blocks must be a number from 1 to 64"),
        (["results", *FILES, "--network", "few.json"], 5, "describes no network"),
        (["results", *FILES, "--network", "adm256"], 5, "of the network; give its --network"),
        (["results", *FILES, "--network", "six.json"], 2, "takes 6 channels"),
        (["results", *FILES, "--beta-max", "0.3", "--ot-ode"], 2, "leave out --beta-max, --ot-ode"),
        (["results", *FILES, "--nfe", "1000"], 2, "--nfe: i2sb.nfe is 1000"),
        (["results", *FILES, "--name", "a b"], 2, "--name: i2sb.name is 'a b'"),
        (["results", *FILES, "--task", "a/b"], 2, "--task: i2sb.task"),
        (["results", *FILES, "--license", "two\nlines"], 2, "--license: i2sb.license"),
        (["results", *FILES, "--dtype", "fp8"], 2, "fp8"),
        (["weights.pt", *FILES, "--cond-x1"], 2, "--cond-x1 it is meant as a bridge"),
        (["weights.pt", *FILES, "--task", "jpeg"], 2, "give its --beta-max too"),
        (["weights.pt", *FILES, "--beta-max", "0.3"], 2, "give --task"),
        (["weights.pt", *FILES, "--beta-max", "-1", "--task", "x"], 2, "--beta-max: i2sb.beta_max"),
        (["weights.pt", *FILES, "--beta-max", "1", "--task", "x", "--raw-weights"], 2, "--raw-weights is for"),
        (["weights.pt", *FILES, "--export"], 2, "nothing to --export"),
        (["variance.pt", *FILES, "--beta-max", "1", "--task", "x"], 5, "predicts a variance too"),
        (["results/latest.pt", *FILES], 2, "holds a bridge"),
        (["micro.json", *FILES], 5, "no zip archive"),
        (["empty", *FILES], 5, "options.pkl: there is no such file"),
        (["half", *FILES], 5, "latest.pt: there is no such file"),
    ],
)
def test_exit_codes(
    results: Callable[..., Path],
    mean: UNet,
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results(image_size=16)
    torch.save(mean.state_dict(), "weights.pt")
    torch.save(network(1, out_channels=6).state_dict(), "variance.pt")
    Path("empty").mkdir()
    Path("half").mkdir()
    Path("half/options.pkl").write_bytes(OPTIONS)
    Path("bad.json").write_text("{")
    Path("list.json").write_text("[]")
    Path("typo.json").write_text(json.dumps({**MICRO, "num_res_block": 1}))
    Path("large.json").write_text(json.dumps({**MICRO, "num_res_blocks": 10**9}))
    Path("few.json").write_text('{"image_size": 16}')
    Path("six.json").write_text(json.dumps({**MICRO, "in_channels": 6}))
    assert main(["convert", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert not list(Path().rglob("*.safetensors"))


def test_an_input_is_never_overwritten(mean: UNet, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(mean.state_dict(), "weights.safetensors")
    before = Path("weights.safetensors").read_bytes()
    Path("link.safetensors").symlink_to("weights.safetensors")
    for target in ("weights.safetensors", "./weights.safetensors", "link.safetensors"):
        assert main(["convert", "weights.safetensors", "--network", "micro.json", "-o", target]) == 2
        assert "another name" in capsys.readouterr().err
    assert Path("weights.safetensors").read_bytes() == before


def test_a_result_that_cannot_be_written_leaves_the_old_one(
    results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = results()
    Path("out.safetensors").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["convert", str(folder), *FILES]) == 4
    assert "out.safetensors cannot be written: No space left on device" in capsys.readouterr().err
    assert Path("out.safetensors").read_bytes() == b"old"
    assert not list(Path().glob(".*.part"))


def test_the_pages_tell_every_option() -> None:
    parser = argparse.ArgumentParser("i2sb-rt")
    convert_parser.add_parser(parser.add_subparsers())
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
        parser.parse_args(["convert", "--help"])
    options = set(re.findall(r"(?<!\S)--?[A-Za-z][A-Za-z0-9-]*", help_text.getvalue())) - {"-h", "--help"}
    assert len(options) > 15
    section = (ROOT / "docs" / "cli.md").read_text().partition("\n## i2sb-rt convert\n")[2].partition("\n## ")[0]
    assert options <= set(re.findall(r"--?[A-Za-z][A-Za-z0-9-]*", section))


@pytest.mark.parametrize(("corrupt", "factor"), [("sr4x-pool", 4), ("sr4x-bicubic", 4), ("blur-uni", 1)])
def test_a_model_for_super_resolution_takes_the_small_picture(
    results: Callable[..., Path], corrupt: str, factor: int
) -> None:
    assert main(["convert", str(results(corrupt=corrupt)), *FILES]) == 0
    info = read_info("out.safetensors")
    assert (info.task, info.upscale) == (corrupt, factor)


@pytest.mark.parametrize("output", ["", "/", "."])
def test_an_output_without_a_name_is_a_sentence(
    results: Callable[..., Path], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(results()), "--network", "micro.json", "-o", output, "--export"]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
