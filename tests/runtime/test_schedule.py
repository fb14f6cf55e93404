import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from i2sb_rt import Schedule
from i2sb_rt.errors import UsageError

DATA = Path(__file__).parents[1] / "data"
NAMES = ("betas", "std_fwd", "std_bwd", "std_sb", "mu_x0", "mu_x1", "noise_levels")


@pytest.mark.parametrize("beta_max", [0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_published_reference(name: str, beta_max: float) -> None:
    golden = np.load(DATA / "schedule.npz")[f"interval1000_betamax{beta_max}/{name}"]
    array = getattr(Schedule(1000, beta_max), name)
    assert array.dtype == np.float64
    np.testing.assert_allclose(array, golden, rtol=1e-12, atol=0)


def test_defaults_are_those_of_the_paper() -> None:
    assert Schedule() == Schedule(interval=1000, beta_max=0.3, t0=1e-4, T=1.0)
    assert Schedule() != Schedule(beta_max=1.0)


def test_weights_follow_from_the_spreads() -> None:
    s = Schedule(64, 0.7)
    total = s.std_fwd**2 + s.std_bwd**2
    np.testing.assert_allclose(s.mu_x0 + s.mu_x1, 1, rtol=1e-14)
    np.testing.assert_allclose(s.mu_x0, s.std_bwd**2 / total, rtol=1e-12)
    np.testing.assert_allclose(s.std_sb, s.std_fwd * s.std_bwd / np.sqrt(total), rtol=1e-12)
    np.testing.assert_allclose(s.betas, s.betas[::-1], rtol=1e-14)


def test_times_reach_from_t0_to_T() -> None:
    s = Schedule(100, 0.3, t0=0.25, T=2.0)
    np.testing.assert_allclose(s.noise_levels, np.linspace(0.25, 2.0, 100) * 100, rtol=1e-14)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda schedule: pickle.loads(pickle.dumps(schedule))])
def test_copies_are_equal_and_frozen_too(copied: Callable[[Schedule], Schedule]) -> None:
    schedule = Schedule(64, 0.7, t0=0.25, T=2.0)
    again = copied(schedule)
    assert again == schedule
    for name in NAMES:
        np.testing.assert_array_equal(getattr(again, name), getattr(schedule, name))
        assert not getattr(again, name).flags.writeable


def test_is_frozen() -> None:
    schedule = Schedule()
    with pytest.raises(FrozenInstanceError):
        schedule.beta_max = 1.0  # type: ignore[misc]
    for name in NAMES:
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[0] = 1


@pytest.mark.parametrize(
    "wrong", [{"interval": 0}, {"interval": 7}, {"interval": -2}, {"beta_max": 0.0}, {"beta_max": float("nan")}]
)
def test_refuses_what_is_no_schedule(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Schedule(**wrong)  # type: ignore[arg-type]
