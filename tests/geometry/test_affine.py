"""Fits of rims: exactness, optimality against generic least squares, degenerate rims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.geometry.affine import DegenerateRim, fit_affine, fit_affines, fit_similarity

seeds = st.integers(0, 2**32 - 1)


def dish(rng: np.random.Generator, count: int = 60, depth: float = 4.0) -> np.ndarray:
    """A rim like a part's: an ellipse bent into a shallow dish, in mm."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    rim = np.stack([20 * np.cos(angle), 14 * np.sin(angle), depth * np.cos(2 * angle + 0.3)], axis=1)
    return rim + rng.normal(scale=0.3 * min(depth, 1.0), size=rim.shape)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@given(seeds, st.floats(0.3, 3.0))
@settings(max_examples=60, deadline=None)
def test_similarity_is_recovered_whatever_the_stiffness(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    donor = dish(rng)
    turn, shift = rotation(rng), rng.normal(size=3) * 50
    host = scale * donor @ turn.T + shift
    for stiffness in (0.0, 0.1, 5.0, np.inf):
        fit = fit_affine(donor, host, stiffness)
        assert np.abs(fit(donor) - host).max() < 1e-9
        assert np.allclose(fit.linear, scale * turn, atol=1e-9)
        assert fit.residual_rms < 1e-9
        assert fit.determinant == pytest.approx(scale**3)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_plain_affine_is_numpy_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    donor, host = dish(rng), dish(rng)
    homogeneous = np.c_[donor, np.ones(len(donor))]
    expected, *_ = np.linalg.lstsq(homogeneous, host, rcond=None)
    fit = fit_affine(donor, host, 0.0)
    assert np.allclose(fit(donor), homogeneous @ expected, atol=1e-8)


@given(seeds, st.floats(0.01, 10.0))
@settings(max_examples=40, deadline=None)
def test_held_affine_minimises_its_objective(seed: int, stiffness: float) -> None:
    rng = np.random.default_rng(seed)
    donor, host = dish(rng), dish(rng)
    similarity = fit_similarity(donor, host).linear
    x, y = donor - donor.mean(axis=0), host - host.mean(axis=0)
    mu = stiffness * np.trace(x.T @ x) / 3

    def objective(a: np.ndarray) -> float:
        return float(((x @ a.T - y) ** 2).sum() + mu * ((a - similarity) ** 2).sum())

    best = fit_affine(donor, host, stiffness).linear
    for _ in range(10):
        assert objective(best) <= objective(best + rng.normal(scale=1e-3, size=(3, 3)))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_similarity_never_mirrors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    donor = dish(rng)
    mirrored = donor * [-1.0, 1.0, 1.0]
    fit = fit_similarity(donor, mirrored)
    assert fit.determinant > 0
    assert np.ptp(fit.singular_values) < 1e-9


@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2, 0.1])
def test_planar_rim_keeps_its_shape_with_stiffness_and_is_refused_without(noise: float) -> None:
    rng = np.random.default_rng(7)
    donor, host = dish(rng, depth=0.0), dish(rng, depth=0.0)
    donor[:, 2], host[:, 2] = rng.normal(scale=noise, size=(2, len(donor))) if noise else (0.0, 0.0)
    held = fit_affine(donor, host, 0.1)
    assert held.singular_values.min() >= 0.8 and held.singular_values.max() <= 1.25
    with pytest.raises(DegenerateRim, match="nearly planar"):
        fit_affine(donor, host, 0.0)


def test_lines_points_and_short_rims_are_refused() -> None:
    line = np.outer(np.arange(10.0), [1.0, 2.0, 3.0])
    for stiffness in (0.0, 0.1, np.inf):
        with pytest.raises(DegenerateRim, match="line"):
            fit_affine(line, line, stiffness)
        with pytest.raises(DegenerateRim, match="line"):
            fit_affine(np.zeros((8, 3)), line[:8], stiffness)
        with pytest.raises(DegenerateRim, match="at least 4"):
            fit_affine(line[:3], line[:3], stiffness)
    with pytest.raises(DegenerateRim):
        fit_affine(np.full((10, 3), np.nan), line, 0.1)
    with pytest.raises(ValueError, match="row-matched"):
        fit_affine(line, line[:5], 0.1)
    with pytest.raises(ValueError, match="at least 0"):
        fit_affine(line, line, -0.1)


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(5)
    donor, host = dish(rng), dish(rng)
    times = rng.integers(1, 4, len(donor))
    for stiffness in (0.0, 0.1, np.inf):
        weighted = fit_affine(donor, host, stiffness, times.astype(float))
        repeated = fit_affine(np.repeat(donor, times, axis=0), np.repeat(host, times, axis=0), stiffness)
        assert np.allclose(weighted.matrix(), repeated.matrix(), atol=1e-10)
        assert weighted.residual_rms == pytest.approx(repeated.residual_rms)


def test_batch_equals_single_fits() -> None:
    rng = np.random.default_rng(3)
    donors, hosts = [dish(rng, n) for n in (20, 60, 91)], [dish(rng, n) for n in (20, 60, 91)]
    for stiffness in (0.0, 0.1, np.inf):
        for fit, donor, host in zip(fit_affines(donors, hosts, stiffness), donors, hosts, strict=True):
            alone = fit_affine(donor, host, stiffness)
            assert np.allclose(fit.matrix(), alone.matrix(), atol=1e-12)
            assert fit.residual_rms == pytest.approx(np.sqrt(((fit(donor) - host) ** 2).sum(axis=1).mean()))
