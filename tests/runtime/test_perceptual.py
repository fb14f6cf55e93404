"""LPIPS, FID and KID: what torchmetrics is given, with stubs in its place, and that nothing is ever downloaded."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2sb_rt.cli import main
from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.perceptual import Inception, Lpips
from i2sb_rt.evaluation.scores import Scorer

RNG = np.random.default_rng(0)
PICTURES = list(RNG.integers(0, 256, (4, 70, 64, 3), dtype=np.uint8))


class FakeLpips:
    """The mean square difference, with a state as torchmetrics has one."""

    def __init__(self, net_type: str) -> None:
        assert net_type == "alex"
        self.calls = 0
        FakeLpips.loaded_safely = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == "1"

    loaded_safely = False

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert self.calls == 0  # it was reset
        self.calls += 1
        assert a.shape == b.shape == (1, 3, 70, 64)
        assert (a.dtype, a.min() >= -1, a.max() <= 1) == (torch.float32, True, True)
        return ((a - b) ** 2).mean()

    def reset(self) -> None:
        self.calls = 0


class FakeDistance:
    """Takes features through its network, as the metrics of sets do; the distance is that of the means."""

    def __init__(self, feature: Any, antialias: bool = False, **options: int) -> None:
        self.inception = feature
        if feature == 2048:
            assert antialias

            def network(images: torch.Tensor) -> torch.Tensor:
                assert (images.dtype, images.shape) == (torch.uint8, (1, 3, 70, 64))
                return images.float().mean((2, 3)).repeat(1, 683)[:, :2048]

            self.inception = network
        self.options, self.seen = options, dict[bool, torch.Tensor]()

    def update(self, images: torch.Tensor, real: bool) -> None:
        self.seen[real] = self.inception(images)

    def compute(self) -> Any:
        gap = (self.seen[True].mean(0) - self.seen[False].mean(0)).abs().mean()
        if not self.options:
            return gap
        assert len(self.seen[True]) >= self.options["subset_size"]
        return gap * self.options["subsets"] + torch.rand(()), torch.tensor(0.0)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stubs in place of the libraries, and an empty cache of weights."""

    def module(name: str, **contents: Any) -> None:
        stub = ModuleType(name)
        vars(stub).update(contents)
        monkeypatch.setitem(sys.modules, name, stub)

    for name in ("torchmetrics", "torchmetrics.image", "torchvision", "torch_fidelity"):
        module(name, __path__=[])
    module("torchmetrics.image.lpip", LearnedPerceptualImagePatchSimilarity=FakeLpips)
    module("torchmetrics.image.fid", FrechetInceptionDistance=FakeDistance)
    module("torchmetrics.image.kid", KernelInceptionDistance=FakeDistance)
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url="https://there/models/alexnet-1234.pth"))
    module("torchvision.models", AlexNet_Weights=weights)
    module("torch_fidelity.feature_extractor_inceptionv3", URL_INCEPTION_V3="https://there/inception-5678.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def fill(hub: Path) -> None:
    hub.mkdir(parents=True)
    for name in ("alexnet-1234.pth", "inception-5678.pth"):
        (hub / name).touch()


def test_missing_weights_are_named_with_their_place(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    for metric, name in (("lpips", "models/alexnet-1234.pth"), ("fid", "inception-5678.pth")):
        with pytest.raises(UsageError) as error:
            Scorer([metric])
        place = hub / Path(name).name
        assert f"metric {metric} needs weights that are not on this machine" in str(error.value)
        assert f"put https://there/{name} at {place}" in str(error.value)


@pytest.mark.parametrize("metric", ["lpips", "fid", "kid"])
def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UsageError, match=rf"{metric} needs torchmetrics.*pip install 'i2sb-rt\[perceptual\]'"):
        Scorer([metric])


def test_damaged_weights_are_a_sentence(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(hub)

    def broken(net_type: str) -> None:
        raise KeyError(net_type)

    monkeypatch.setattr(sys.modules["torchmetrics.image.lpip"], "LearnedPerceptualImagePatchSimilarity", broken)
    with pytest.raises(UsageError, match=r"cannot use the weights in .*alexnet-1234\.pth"):
        Lpips()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_lpips_is_given_pictures_between_minus_one_and_one(hub: Path) -> None:
    fill(hub)
    lpips = Lpips()
    assert FakeLpips.loaded_safely
    assert lpips(PICTURES[0], PICTURES[0]) == 0
    wanted = np.mean(((PICTURES[0].astype(float) - PICTURES[1]) / 127.5) ** 2)
    assert lpips(PICTURES[0], PICTURES[1]) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(UsageError, match="lpips needs sides of at least 63 pixels, not 62 x 70"):
        lpips(PICTURES[0][:, :62], PICTURES[1][:, :62])


def test_fid_and_kid_compare_the_features_of_all_pictures(hub: Path) -> None:
    fill(hub)
    scorer = Scorer(["psnr", "kid", "fid"])
    clean = [scorer.features(picture) for picture in PICTURES]
    scores = [scorer.score(picture, picture // 2) for picture in PICTURES]
    assert clean[0].shape == (2048,)
    summary = scorer.summary(clean, scores)
    assert list(summary) == ["psnr", "kid", "fid"]
    means = np.mean([picture.mean((0, 1)) - (picture // 2).mean((0, 1)) for picture in PICTURES], axis=0)
    assert summary["fid"] == pytest.approx(np.abs(np.tile(means, 683)[:2048]).mean(), rel=1e-4)
    state = torch.random.get_rng_state()
    assert scorer.summary(clean, scores) == summary  # KID draws its subsets, the same each time
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.isnan(scorer.summary(clean[:1], scores[:1])["fid"])


def test_kid_takes_subsets_where_there_are_many(hub: Path) -> None:
    fill(hub)
    inception = Inception("kid")
    ones, zeros = np.ones(2048, np.float32), np.zeros(2048, np.float32)
    few, many = inception.kid([ones] * 1000, [zeros] * 1000), inception.kid([ones] * 1001, [zeros] * 1001)
    assert 1 <= few < 2
    assert 100 <= many < 101


def test_the_command_takes_them(hub: Path, tmp_path: Path, toy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(hub)
    (tmp_path / "clean").mkdir()
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "clean" / f"{number}.png")
    arguments = ["--images", str(tmp_path / "clean"), "-n", str(toy_path), "--task", "jpeg-10", "--nfe", "1,2"]
    assert main(["eval", *arguments, "--metrics", "lpips,fid,kid", "--json"]) == 0
    *rows, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert len(rows) == 2
    for row in rows:
        assert all(row[f"{metric}_{when}"] > 0 for metric in ("lpips", "fid", "kid") for when in ("before", "after"))
        assert row["harmed"] is None
        assert set(row["each"][0]) == {"in", "w", "h", "lpips_before", "lpips_after"}
    assert rows[0]["fid_before"] == rows[1]["fid_before"]
    assert rows[0]["fid_after"] != rows[1]["fid_after"]
