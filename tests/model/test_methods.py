"""Every method of ours is right, by the suite that proves any."""

from __future__ import annotations

import pytest
from facegraft_model.errors import ModelError
from facegraft_model.methods import METHODS, field_class
from facegraft_model.testing import FieldSuite


class TestParts(FieldSuite):
    settings = ("model.window=true", "loss.eikonal_neutral=50", "loss.dense=1e3", "loss.locality=1e2")


class TestPartsAsPublished(FieldSuite):
    settings = ("model.hyper=full", "model.landmarks=five")
    moved = 0.005  # a hyper-network of whole tensors answers a small change with a large one


class TestImface(FieldSuite):
    settings = ("model.method=imface", "loss.eikonal_neutral=50")


class TestImfaceAsPublished(FieldSuite):
    settings = ("model.method=imface", "model.warp=se3", "model.id_dim=7", "loss.eikonal_neutral=50")


class TestDeepSDF(FieldSuite):
    settings = (
        "model.method=deepsdf",
        "baseline.deepsdf_dim=8",
        "baseline.deepsdf_width=32",
        "baseline.deepsdf_layers=4",
    )


class TestI3DMM(FieldSuite):
    settings = (
        "model.method=i3dmm",
        "baseline.i3dmm_id_dim=8",
        "baseline.i3dmm_exp_dim=4",
        "baseline.i3dmm_width=32",
        "baseline.i3dmm_layers=4",
        "baseline.i3dmm_reference_width=48",
    )


def test_every_method_has_its_suite() -> None:
    suites = [each for each in globals().values() if isinstance(each, type) and issubclass(each, FieldSuite)]
    tested = {setting.partition("=")[2] for each in suites for setting in each.settings if "method=" in setting}
    assert tested | {"parts"} == set(METHODS)


def test_a_method_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="there is no method 'nerf'; there are parts, imface, i3dmm, deepsdf"):
        field_class("nerf")
