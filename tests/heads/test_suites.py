"""Our own sources of heads pass the suite that facegraft gives to those who write one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facegraft.heads.expressions import BY_NAME
from facegraft.heads.source import KINDS
from facegraft.testing.heads import HeadSourceSuite, SourceCase

SIZES = (1.0, 1.03, 0.96, 1.05)


class ToySuite(HeadSourceSuite):
    """A suite whose heads are toy heads of several sizes."""

    toy: ModuleType

    @pytest.fixture(autouse=True)
    def _toy(self, toy: ModuleType) -> None:
        self.toy = toy

    def region_map(self, folder: Path, mm_per_unit: float = 1.0) -> str:
        path = folder / "toy.json"
        self.toy.region_map(mm_per_unit).save(path)
        return str(path)

    def write(self, root: Path, *names: str) -> None:
        for name, size in zip(names, SIZES, strict=False):
            self.toy.write_obj(root / name, size * self.toy.vertices())


class TestSynthetic(HeadSourceSuite):
    kind = "synthetic"

    def case(self, folder: Path) -> SourceCase:
        return SourceCase(None, {"subjects": 2, "expressions": 2})


class TestIct(ToySuite):
    kind = "ict"

    def case(self, folder: Path) -> SourceCase:
        self.toy.write_ict(folder / "FaceXModel", list(BY_NAME["brow_lower"].shapes))
        options = {"subjects": 3, "expressions": ("neutral", "brow_lower"), "region_map": self.region_map(folder, 10.0)}
        return SourceCase(folder / "FaceXModel", options)


class TestFacescape(ToySuite):
    kind = "facescape"

    def case(self, folder: Path) -> SourceCase:
        self.write(folder / "fs", "2/1_neutral.obj", "2/2_smile.obj", "10/models_reg/1_neutral.obj")
        (folder / "fs" / "10" / "models_reg" / "2_smile.obj").write_text("v 0 0 0\n")
        return SourceCase(folder / "fs", {"region_map": self.region_map(folder)}, frozenset(["10_e02"]))


class TestFlame(ToySuite):
    kind = "flame"

    def case(self, folder: Path) -> SourceCase:
        heads = np.stack([size * self.toy.vertices() for size in SIZES]) / 1000
        heads[2, 5, 1] = np.nan
        np.savez(folder / "fits.npz", shapes=heads, subjects=["p0", "p1", "p2", "p3"], faces=self.toy.faces())
        return SourceCase(folder / "fits.npz", {"region_map": self.region_map(folder, 1000.0)}, frozenset(["p2_e01"]))


class TestMeshes(ToySuite):
    kind = "meshes"

    def case(self, folder: Path) -> SourceCase:
        self.write(folder / "heads", "ben.obj", "s2/neutral.obj", "s2/3_mouth_stretch.obj", "s10/neutral.obj")
        self.toy.write_obj(folder / "heads" / "s11" / "neutral.obj", 1000 * self.toy.vertices())
        return SourceCase(folder / "heads", {"region_map": self.region_map(folder)}, frozenset(["s11_e01"]))


def test_every_source_has_its_suite() -> None:
    suites = [value for value in globals().values() if isinstance(value, type) and issubclass(value, HeadSourceSuite)]
    assert {suite.kind for suite in suites if hasattr(suite, "kind")} == set(KINDS)
