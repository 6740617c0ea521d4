"""Every distance backend that is shipped, by the suite that proves one right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from facegraft.surfaces.distance import BACKENDS, signed_distance
from facegraft.surfaces.errors import DistanceError
from facegraft.testing.distance import DistanceSuite


class TestWinding(DistanceSuite):
    backend = "winding"


class TestHeightField(DistanceSuite):
    backend = "height_field"
    sheet = True


@pytest.mark.slow
class TestMeshToSdf(DistanceSuite):
    """The published estimate, and how bad it is: a cloud of a million points, and a vote of normals."""

    backend = "mesh-to-sdf"
    tolerance = 0.02
    sign_errors = 0.05

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("mesh_to_sdf", reason="the extra `paper` is not installed")


def test_every_backend_has_its_suite() -> None:
    suites = [value for value in globals().values() if isinstance(value, type) and issubclass(value, DistanceSuite)]
    assert {suite.backend for suite in suites if suite is not DistanceSuite} == set(BACKENDS)


def test_an_unknown_backend_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        DistanceError, match=r"no distance backend 'windin' \(did you mean 'winding'\?\)"
    ):
        signed_distance([[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]], backend="windin")


def test_a_wrong_backend_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite finds what it is for: unsigned distances, wrong ones, gradients that are none, other faces."""
    right = BACKENDS["winding"]
    changes = {
        "test_signs_beside_every_side": lambda d: replace(d, sdf=abs(d.sdf)),
        "test_a_box": lambda d: replace(d, sdf=d.sdf + 1e-6),
        "test_a_sphere": lambda d: replace(d, sdf=-d.sdf),
        "test_gradients_have_length_one": lambda d: replace(d, gradient=2.0 * d.gradient),
        "test_nearest_points_lie_on_their_faces_at_the_distance": lambda d: replace(d, face_index=0 * d.face_index),
        "test_shapes_and_types_of_the_answer": lambda d: replace(d, sdf=d.sdf.astype("f4")),
    }
    for test, change in changes.items():
        getattr(TestWinding(), test)()
        wrong = replace(right, measure=lambda v, f, p, change=change: change(right.measure(v, f, p)))
        with monkeypatch.context() as patch:
            patch.setitem(BACKENDS, "winding", wrong)
            with pytest.raises(AssertionError):
                getattr(TestWinding(), test)()
