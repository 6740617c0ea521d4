"""Topologies that people reported as broken: sound ones get all their parts, and of the others one line names the fault itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from reported_cases import Answer, Cases

from facegraft.regions.regionmap import load_region_map

pytestmark = pytest.mark.slow


def build(cases: Cases, folder: Path, mesh: str, landmarks: str = "lm.txt") -> Answer:
    return cases.facegraft(folder, "regions", "build", mesh, "--landmarks", landmarks, "--name", "tried", "-o", "tried.json")


def check_both_eyes(folder: Path) -> None:
    """The goggles hold every landmark of both eyes, in one part."""
    region_map = load_region_map(str(folder / "tried.json"))
    held = region_map.vertex_labels("goggles")[region_map.landmarks68[36:48]]
    assert held[0] > 0 and (held == held[0]).all(), held


@pytest.fixture(scope="module")
def topologies(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("topologies")
    cases.make("13", folder)
    cases.make("13b", folder)
    return folder


@pytest.mark.parametrize("mesh", ["whole.obj", "unref/1.obj", "far/1.obj", "asym/1.obj"])
def test_13_sound_topologies_have_both_halves_of_each_part(cases: Cases, topologies: Path, mesh: str) -> None:
    answer = build(cases, topologies, mesh)
    assert answer.code == 0 and answer.output.splitlines()[-1].strip() == "sound", answer.output + answer.error
    check_both_eyes(topologies)


@pytest.mark.parametrize(
    ("mesh", "landmarks", "words"),
    [
        ("unwelded/1.obj", "lm.txt", "is not welded: 244 of its vertices"),
        ("fin.obj", "lm.txt", "more than two faces meet at the edge"),
        ("dupface.obj", "lm.txt", "lies on the same vertices as another"),
        ("allflip.obj", "lm.txt", "the faces look inwards"),
        ("zup.obj", "lm.txt", "+y must be up"),
        ("backward.obj", "lm.txt", "left and right are swapped"),
        ("mirror.obj", "lm.txt", "left and right are swapped"),
        ("whole.obj", "lm_swapped.txt", "left and right are swapped"),
        ("faceonly/1.obj", "lm_faceonly.txt", "landmark 0 is vertex -1"),
    ],
)
def test_13_the_fault_itself_is_named(cases: Cases, topologies: Path, mesh: str, landmarks: str, words: str) -> None:
    answer = build(cases, topologies, mesh, landmarks)
    assert answer.code == 1 and words in answer.line, answer.line
