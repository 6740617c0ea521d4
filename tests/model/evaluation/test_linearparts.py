"""The linear model by parts: its displacements add up to the heads, and parts of different heads combine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facegraft_model.data.ids import DataError
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.linearparts import part_displacements, train_linear_parts
from facegraft_model.evaluation.trainingheads import TrainingHeads
from linear_heads import Synthetic, scan_of
from numpy.typing import NDArray
from toy_parts import EYES, head_row

HEADS, KNOWN = 10, 300
Array = NDArray[np.float64]


class Parted(Synthetic):
    """Heads of a smooth remainder and three bumps, of which each part has its own height; stages as a template morph has them."""

    def __init__(self) -> None:
        super().__init__()
        x, y, z = (self.mean / np.linalg.norm(self.mean, axis=1, keepdims=True)).T
        front = z > 0.4
        self.labels = np.zeros(len(self.mean), np.uint8)
        self.labels[front & (abs(x) < 0.25) & (abs(y) < 0.2)] = EYES.label("nose")
        self.labels[front & (y >= 0.2)] = EYES.label("eyes")
        self.labels[front & (y <= -0.2)] = EYES.label("mouth")
        wave = np.cos(7 * x) * np.cos(5 * y)
        self.bump = 0.02 * wave[:, None] * self.mean
        rng = np.random.default_rng(3)
        self.points = rng.choice(len(self.mean), KNOWN, replace=False)
        # The mean of the heads must be their template: codes with mean 0.
        self.rem = centred(rng.standard_normal((HEADS, 2)))
        self.heights = centred(rng.standard_normal((HEADS, 3)))

    def remainder(self, code: Array) -> Array:
        """A stretch and a shear."""
        return self.mean * (0.03 * code[0]) + 0.03 * code[1] * self.mean[:, [1, 2, 0]]

    def parted(self, rem: Array, heights: Array) -> Array:
        """Vertices of a head."""
        height = np.concatenate([[0.0], heights])[self.labels]
        return self.mean + self.remainder(rem) + height[:, None] * self.bump

    def stages(self, rem: Array, heights: Array) -> Array:
        """As scanned, neutral, without each further part, the template: [6,M,3]."""
        bare = [self.parted(rem, heights * (np.arange(3) >= removed)) for removed in range(4)]
        return np.stack([bare[0], *bare, self.mean])[:, self.points]

    def dataset(self, folder: Path) -> Path:
        heads, stages = {}, {}
        for number, (rem, heights) in enumerate(zip(self.rem, self.heights, strict=True)):
            key = f"s{number:02d}_neutral"
            heads[key] = ({**head_row(f"s{number:02d}"), "split": "train", "origin": "scan"}, self.parted(rem, heights))
            stages[key] = self.stages(rem, heights)
        return self.write(folder, heads, stages=stages, parts=self.labels)


def centred(codes: Array) -> Array:
    return np.asarray(codes - codes.mean(0))


@pytest.fixture(scope="module")
def parted() -> Parted:
    return Parted()


@pytest.fixture(scope="module")
def surfaces(parted: Parted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parted.dataset(tmp_path_factory.mktemp("parted") / "surfaces")


@pytest.fixture(scope="module")
def trained(surfaces: Path) -> LinearModel:
    return train_linear_parts(surfaces)


def test_displacements_add_up_to_the_heads_and_stay_in_their_parts(parted: Parted, surfaces: Path) -> None:
    heads = TrainingHeads.read(surfaces, "train", ("scan",))
    moved = part_displacements(heads)
    assert list(moved) == ["rem", "nose", "eyes", "mouth"]
    np.testing.assert_allclose(sum(moved.values()), heads.neutral - heads.neutral.mean(0), atol=1e-15)
    for number, name in enumerate(("nose", "eyes", "mouth")):
        own = parted.labels == EYES.label(name)
        shift = moved[name].reshape(HEADS, -1, 3)
        assert (shift[:, ~own] == 0).all() and own.any()
        true = parted.heights[:, number, None, None] * parted.bump[own]
        error = np.linalg.norm(shift[:, own] - true, axis=2)
        known = np.isin(np.flatnonzero(own), parted.points)
        assert 0.2 < known.mean() < 0.8
        assert error[:, known].max() < 1e-6  # stored in float32
        # Between the stage points the remainder is interpolated: within a few percent of its motion.
        size = np.linalg.norm(np.stack([parted.remainder(code) for code in parted.rem]), axis=2).mean()
        assert error[:, ~known].mean() < 0.05 * size


def test_parts_of_different_heads_combine(parted: Parted, trained: LinearModel, surfaces: Path) -> None:
    """A head of the remainder of one head and the parts of others is in reach of the parts' codes, not of one code for all."""
    assert list(trained.code_dims) == ["rem", "nose", "eyes", "mouth", "exp"] and trained.code_dims["exp"] == 0
    mixed = parted.parted(parted.rem[0], np.array([parted.heights[1, 0], parted.heights[2, 1], parted.heights[3, 2]]))
    fit = trained.fit_vertices(mixed, noise_mm=0.1, expression=False)
    # Three bumps and two codes of the remainder span all five dimensions that these heads have, so a few heads are left for one code.
    few = LinearModel.train(surfaces, identity=3).fit_vertices(mixed, noise_mm=0.1, expression=False)
    assert fit.rms_mm < 0.2 * few.rms_mm
    assert set(fit.codes) == {"rem", "nose", "eyes", "mouth"}
    points, normals = scan_of(mixed, parted.faces, 4000)
    found = trained.fit_points(points, normals, noise_mm=0.1)
    assert found.rms_mm < 0.3
    np.testing.assert_array_equal(trained.decode(fit.codes).parts, parted.labels)


def test_one_code_moves_one_part(parted: Parted, trained: LinearModel) -> None:
    codes = {name: np.zeros(count) for name, count in trained.code_dims.items()}
    for name in ("nose", "eyes", "mouth"):
        moved = trained.decode(codes | {name: np.ones(trained.code_dims[name])}).vertices - trained.mean
        own = parted.labels == EYES.label(name)
        assert (moved[~own] == 0).all() and np.abs(moved[own]).max() > 1e-3
    with pytest.raises(ModelError, match=r"takes codes rem, nose, eyes, mouth and \(where not neutral\) exp, not rem"):
        trained.decode({"rem": codes["rem"]})


def test_saved_and_loaded(trained: LinearModel, tmp_path: Path) -> None:
    trained.save(tmp_path)
    again = LinearModel.load(tmp_path)
    assert list(again.modes) == list(trained.modes)
    assert all(np.array_equal(again.modes[name], trained.modes[name]) for name in trained.modes)


def test_surfaces_without_a_morph_or_registration_are_refused(parted: Parted, tmp_path: Path) -> None:
    codes = zip(parted.rem, parted.heights, strict=True)
    heads = {
        f"s{number}": ({**head_row(f"s{number}"), "split": "train", "origin": "scan"}, parted.parted(*code))
        for number, code in enumerate(codes)
    }
    with pytest.raises(DataError, match="holds 1 stages of 5 points, not the 6 of a template morph"):
        train_linear_parts(parted.write(tmp_path / "bare", heads, parts=parted.labels))
    stages = {key: np.full((6, 4, 3), 0.9) for key in heads}
    with pytest.raises(DataError, match=r"a stage point lies .* from the nearest vertex"):
        train_linear_parts(parted.write(tmp_path / "off", heads, stages=stages, parts=parted.labels))
    with pytest.raises(ModelError, match=r"modes \(0\) must be at least 1"):
        train_linear_parts(tmp_path, modes=0)
