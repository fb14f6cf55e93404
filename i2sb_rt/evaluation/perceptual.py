"""LPIPS, FID and KID by torchmetrics, with weights that are on this machine already: nothing is ever downloaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.metrics import at_least
from i2sb_rt.image import U8

F32 = NDArray[np.float32]

ALEXNET_SMALLEST: Final = 63
KID_SUBSET: Final = 1000


class Lpips:
    """LPIPS with AlexNet (arXiv 1801.03924): call it with two pictures, uint8 [H, W, 3], sides of at least 63.

    Raises UsageError where a library or the weights are missing, and in a call for smaller sides.
    """

    def __init__(self) -> None:
        lpip = _library("lpips", "torchmetrics.image.lpip", "torchmetrics")
        weights = _library("lpips", "torchvision.models", "torchvision").AlexNet_Weights.DEFAULT
        with _weights_at_hand("lpips", weights.url):
            self._metric = lpip.LearnedPerceptualImagePatchSimilarity(net_type="alex")
        self._lock = threading.Lock()

    def __call__(self, clean: U8, picture: U8) -> float:
        """Return the distance of the two pictures, 0 where they are equal."""
        at_least("lpips", clean, ALEXNET_SMALLEST)
        pair = [_tensor(pixels) / 127.5 - 1 for pixels in (clean, picture)]
        with self._lock:  # the metric has a state
            value = float(self._metric(*pair))
            self._metric.reset()
        return value


class Inception:
    """What FID (arXiv 1706.08500) and KID (arXiv 1801.01401) compare: 2048 features of a picture from Inception-v3.

    Raises UsageError where a library or the weights are missing.
    """

    def __init__(self, metric: str) -> None:
        self._fid = _library(metric, "torchmetrics.image.fid", "torchmetrics")
        self._kid = _library(metric, "torchmetrics.image.kid", "torchmetrics")
        place = _library(metric, "torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
        with _weights_at_hand(metric, place.URL_INCEPTION_V3):
            self._network = self._fid.FrechetInceptionDistance(feature=2048, antialias=True).inception

    def features(self, picture: U8) -> F32:
        """Return the features, float32 [2048], of a picture, uint8 [H, W, 3], brought to 299 x 299 by torchmetrics."""
        import torch

        with torch.no_grad():
            return np.asarray(self._network(_tensor(picture))[0].numpy(), np.float32)

    def fid(self, clean: Sequence[F32], pictures: Sequence[F32]) -> float:
        """Return the Frechet distance of two sets of features, two or more in each."""
        return float(_compared(self._fid.FrechetInceptionDistance(feature=_given()), clean, pictures))

    def kid(self, clean: Sequence[F32], pictures: Sequence[F32]) -> float:
        """Return the kernel distance of two sets of as many features, two or more: the mean over 100 subsets of 1000.

        Where there are 1000 or fewer, it is that of all of them. The subsets are the same in every call.
        """
        import torch

        size = min(len(clean), KID_SUBSET)
        subsets = 1 if size == len(clean) else 100
        metric = self._kid.KernelInceptionDistance(feature=_given(), subsets=subsets, subset_size=size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return float(_compared(metric, clean, pictures)[0])


def _compared(metric: Any, clean: Sequence[F32], pictures: Sequence[F32]) -> Any:
    import torch

    for features, real in ((clean, True), (pictures, False)):
        metric.update(torch.from_numpy(np.stack(features)), real=real)
    return metric.compute()


def _given() -> Any:
    """Return the network that stands where torchmetrics has Inception: the features are there already."""
    import torch

    network: Any = torch.nn.Identity()
    network.num_features = 2048
    return network


def _tensor(picture: U8) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


def _library(metric: str, module: str, package: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # a torchvision of another PyTorch raises a RuntimeError
        why = f"the metric {metric} needs {package}, which cannot be loaded ({error})"
        raise UsageError(f"{why}: pip install 'i2sb-rt[perceptual]'") from error


@contextmanager
def _weights_at_hand(metric: str, url: str) -> Iterator[None]:
    """Let a library load weights from PyTorch's cache, as tensors and nothing else; refuse before it would download."""
    import torch

    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not path.is_file():
        raise UsageError(
            f"the metric {metric} needs weights that are not on this machine, and nothing is downloaded: "
            f"put {url} at {path}"
        )
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    except Exception as error:  # what PyTorch raises for a damaged file is of many types
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UsageError(f"the metric {metric} cannot use the weights in {path}: {reason}") from error
    finally:
        os.environ.pop(switch)
        if before is not None:
            os.environ[switch] = before
