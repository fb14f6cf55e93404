"""Dead leaves: decided by the seed, varied, and with edges at every scale."""

import numpy as np

from i2sb_train.procedural import dead_leaves


def test_a_seed_decides_the_picture() -> None:
    first, again, other = (dead_leaves(48, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pictures_differ_and_use_the_range() -> None:
    pictures = np.stack([dead_leaves(48, np.random.default_rng(seed)) for seed in range(24)]).astype(float)
    means = pictures.mean((1, 2, 3))
    assert means.std() > 10
    assert pictures.min() < 10
    assert pictures.max() > 245
    assert (pictures.std((1, 2)) > 3).all()


def test_contrast_is_there_at_every_scale() -> None:
    # A scale-invariant picture loses little variance when halved; noise would lose three quarters each time.
    pictures = [dead_leaves(64, np.random.default_rng(seed)).astype(float) for seed in range(12)]
    for factor in (2, 4, 8):
        side = 64 // factor
        halved = [p.reshape(side, factor, side, factor, 3).mean((1, 3)) for p in pictures]
        kept = np.mean([h.var() for h in halved]) / np.mean([p.var() for p in pictures])
        assert 0.4 < kept < 1
