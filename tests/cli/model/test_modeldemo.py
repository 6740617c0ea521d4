"""The model's part of `facegraft demo`, on spheres with parts of other names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facegraft_model import presets

from facegraft import modeldemo


@pytest.mark.slow
def test_the_demo_swaps_the_first_part_of_its_model(
    bears: Path, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*small[1::2], "train.steps=60", "fit.steps=10"]
    monkeypatch.setattr(presets, "TINY", presets.TINY.with_settings(settings))
    for name, value in {"RESOLUTION": 32, "SWAP_RESOLUTION": 40, "POINTS": 1000}.items():
        monkeypatch.setattr(modeldemo, name, value)
    said: list[str] = []
    modeldemo.model_demo(bears / "samples", tmp_path, 0, False, said.append)
    assert said[0].endswith("preset tiny, 60 steps") and said[1].endswith("2 held-out heads")
    assert said[2].split()[:5] == ["full", "snout", "lobe_left", "beak", "rem"]
    assert said[3] == f"{tmp_path / 'swap'}: the snout of eve_neutral on dave_neutral"
    shipped = tmp_path / "ict-head"
    assert said[4].startswith(f"{shipped / 'fits'}: the model that ships, fitted to 2 of these heads as scans; mean distance ")
    assert said[5] == f"{shipped / 'swap'}: the nose of eve_neutral on dave_neutral"
    numbers = json.loads((tmp_path / "swap" / "numbers.json").read_text())
    assert (numbers["host"], numbers["donors"]) == ("dave_neutral", {"snout": "eve_neutral"})
    assert b"comment part: 0 rem, 1 snout" in (tmp_path / "swap" / "swapped.ply").read_bytes()
    written = {"scores/scores.json", "scores/scores.csv", "scores/table.txt", "scores/fits.png", "swap/sheet.png", "ict-head/swap/sheet.png"}
    assert all((tmp_path / name).stat().st_size > 100 for name in written)
