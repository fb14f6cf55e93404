"""What the recipes reach: each is run whole, with `-m slow`, and held against what theory or publications say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian_bridge import divergence, exact_coupling, fitted
from numpy.typing import NDArray

from i2sb_train.dsb.data import Ends, digits, split
from i2sb_train.dsb.known_plan import KnownPlan
from i2sb_train.dsb.measures import cbw2_uvp, sliced_wasserstein
from i2sb_train.dsb.process import Process, Reference
from i2sb_train.dsb.recipe import DsbRecipe, dsb_rules
from i2sb_train.dsb.trainer import Fitter
from i2sb_train.progress import Progress
from i2sb_train.recipe_file import checked, read_tables

RECIPES = Path(__file__).parents[3] / "train" / "recipes" / "dsb"
F64 = NDArray[np.float64]

# KL in arXiv 2303.16852, table 3 (dimension, algorithm), perhaps not of the coupling as here; 1.5 times it is allowed.
PUBLISHED = {(5, "ipf"): 3.26e-3, (20, "ipf"): 13.0e-3, (5, "imf"): 1.34e-3, (20, "imf"): 5.05e-3}
# cBW2-UVP in per cent.
UNEXPLAINED = {(2, "ipf"): 2.5, (16, "ipf"): 9.0, (2, "imf"): 0.5, (16, "imf"): 1.5}


def recipe_of(name: str, **train: int) -> DsbRecipe:
    recipe = checked(DsbRecipe, read_tables(RECIPES / f"{name}.toml"), dsb_rules)
    return replace(recipe, train=replace(recipe.train, **train))


def fitter_of(recipe: DsbRecipe, folder: Path) -> Fitter:
    return Fitter(recipe, Ends(recipe), folder, torch.device("cpu"))


def run_half(fitter: Fitter) -> None:
    with Progress(0, 1, 10**9, quiet=True) as progress:
        assert fitter.run_half(progress) is not None


def fit(recipe: DsbRecipe, folder: Path) -> Fitter:
    fitter = fitter_of(recipe, folder)
    while not fitter.ended:
        run_half(fitter)
        fitter.next_half()
    return fitter


def coupled(fitter: Fitter, count: int) -> F64:
    """Pairs of the forward coupling, [count, 2d]."""
    parts = []
    for k in range(count // 50_000):
        x = fitter.drawn("start", 50_000, 100 + k)
        parts.append(torch.cat([x, fitter.simulate("forward", x, 100 + k)[-1]], 1).flatten(1).double().numpy())
    return np.concatenate(parts)


def score(pairs: F64, mean: F64, covariance: F64) -> float:
    """KL of a Gaussian fitted to the pairs to the exact coupling, less that of as many exact pairs."""
    exact = np.random.default_rng(0).multivariate_normal(mean, covariance, len(pairs), method="cholesky")
    found, floor = (divergence(*fitted(values), mean, covariance) for values in (pairs, exact))
    return found - floor


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "algorithm"), sorted(PUBLISHED))
def test_closed_form(dim: int, algorithm: str, tmp_path: Path) -> None:
    eye, mean = np.eye(dim), np.full(dim, 0.1)
    exact = exact_coupling(-mean, eye, mean, eye, 1.0)
    scores, crosses = [], []
    for seed in range(3):
        pairs = coupled(fit(recipe_of(f"gaussian{dim}-{algorithm}", seed=seed), tmp_path / str(seed)), 1_000_000)
        scores.append(score(pairs, *exact))
        crosses.append(np.cov(pairs.T)[:dim, dim:].diagonal().mean())
        print(f"gaussian{dim}-{algorithm}, seed {seed}: {scores[-1]:.2e}, cross-covariance {crosses[-1]:.4f}")
    assert np.median(scores) <= 1.5 * PUBLISHED[dim, algorithm]
    assert np.median(crosses) == pytest.approx((5**0.5 - 1) / 2, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "algorithm"), sorted(UNEXPLAINED))
def test_known_plan(dim: int, algorithm: str, tmp_path: Path) -> None:
    fitter = fit(recipe_of(f"coupled{dim}-{algorithm}"), tmp_path)
    plan = fitter.ends.plan
    assert isinstance(plan, KnownPlan)
    assert plan.epsilon == 1.0
    points = fitter.drawn("start", 1000, 3)
    parts = [fitter.simulate("forward", x.repeat_interleave(1000, 0), k)[-1] for k, x in enumerate(points.split(100))]
    ends = torch.cat(parts).flatten(1).double().numpy().reshape(1000, 1000, dim)
    found = cbw2_uvp(plan, points.flatten(1).double().numpy(), ends)
    print(f"coupled{dim}-{algorithm}: {found:.2f} %")
    assert found <= UNEXPLAINED[dim, algorithm]


@pytest.mark.parametrize("reference", ["brownian", "ou"])
def test_first_iteration_is_the_reverse_drift(reference: str, tmp_path: Path) -> None:
    """-f + 2 grad log p of the chain's Gaussian marginals, in L2 along the path."""
    recipe = recipe_of("gaussian5-ipf")
    bridge = replace(recipe.bridge, reference=reference)
    start, end = replace(recipe.start, mean=-0.5, std=0.7, dim=2), replace(recipe.end, mean=0.0, dim=2)
    train = replace(recipe.train, steps=1000, batch=4096, lr=3e-3, ema=0.99, cache=100_000, refresh=50)
    small = {"mlp": {"width": 32, "depth": 2}}
    fitter = fitter_of(replace(recipe, network=small, bridge=bridge, start=start, end=end, train=train), tmp_path)
    run_half(fitter)
    process = Process(bridge.gammas(), Reference(1.0 if reference == "ou" else 0.0), torch.device("cpu"))
    rate, drift = process.reference.rate, fitter.drift("backward")
    x, generator = fitter.drawn("start", 20_000, 0), torch.Generator().manual_seed(0)
    m, v, off, size = start.mean, start.std**2, 0.0, 0.0
    for state, gamma in enumerate(process.gammas.tolist(), start=1):
        m, v = (1 - rate * gamma) * m, (1 - rate * gamma) ** 2 * v + 2 * gamma
        x = process.stepped(x, -rate * x, gamma, generator)
        wanted = rate * x - 2 * (x - m) / v
        off += gamma * float(((drift(x, state) - wanted) ** 2).mean())
        size += gamma * float((wanted**2).mean())
    print(f"{reference}: {(off / size) ** 0.5:.4f}")
    assert (off / size) ** 0.5 <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moons", "8gaussians", "checkerboard"])
def test_plane(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    assert recipe.bridge.steps == 20
    fitter = fitter_of(recipe, tmp_path)
    found = []
    while not fitter.ended:
        run_half(fitter)
        if fitter.fit.direction == "backward":
            made = fitter.simulate("backward", fitter.drawn("end", 2000, 0), 0)[-1].flatten(1).numpy()
            found.append(sliced_wasserstein(made, fitter.drawn("start", 2000, 1).flatten(1).numpy()))
        fitter.next_half()
    sets = [fitter.drawn("start", 2000, seed).flatten(1).numpy() for seed in range(1, 22)]
    floor = float(np.median([sliced_wasserstein(sets[0], other) for other in sets[1:]]))
    print(f"{name}: {', '.join(f'{one:.4f}' for one in found)}; two fresh sets {floor:.4f}")
    assert found[-1] <= 2 * floor
    assert found[-1] < found[0]


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    names = load_digits().target.astype(np.float32)
    labelled = np.concatenate([digits(), names[:, None]], 1)
    kept, held = split(labelled, 0.2)
    judge = MLPClassifier((128,), random_state=0, max_iter=500).fit(kept[:, :64], kept[:, 64])
    assert judge.score(held[:, :64], held[:, 64]) > 0.97
    fitter = fit(recipe_of("digits"), tmp_path)
    made = fitter.simulate("backward", fitter.drawn("end", 500, 0), 0)[-1].flatten(1).numpy()
    sure = judge.predict_proba(made.clip(-1, 1))
    share = float((sure.max(1) > 0.9).mean())
    counts = np.bincount(sure.argmax(1), minlength=10)
    real = float((judge.predict_proba(held[:, :64]).max(1) > 0.9).mean())
    print(f"digits: {share:.3f} are sure (of real ones {real:.3f}); {counts.tolist()}")
    assert share >= 0.8
    assert counts.min() > 0
