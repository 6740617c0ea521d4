"""What the four stages write, checked against independent computations."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import igl
import numpy as np
import pytest
import trimesh
from scipy import stats

from facegraft.engine import EngineOptions
from facegraft.errors import FacegraftError
from facegraft.geometry.frame import head_origin
from facegraft.pipeline import clean, graft, ingest, run_recipe, sample
from facegraft.recipe import find_recipe, load_recipe
from facegraft.regions.regionmap import RegionMap, RegionSet, load_region_map
from facegraft.stages.clean import CleanError
from facegraft.stages.graft import GraftError
from facegraft.stages.morph import choose_stage_vertices
from facegraft.stages.parameters import ParameterError
from facegraft.stages.sample import (
    SampleError,
    SampleParameters,
    plan_sample,
    sample_interesting,
    sample_item,
    template_topology,
)
from facegraft.store import Dataset, open_dataset, verify_dataset
from facegraft.surfaces.normals import signed_volume
from facegraft.surfaces.sampling import window_uniformity


@pytest.fixture(scope="module")
def sets(small_run: Path) -> dict[str, Dataset]:
    return {name: open_dataset(small_run / name) for name in ("heads", "composites", "surfaces", "samples")}


def test_every_stage_is_whole(small_run: Path) -> None:
    for name in ("heads", "composites", "surfaces", "samples"):
        assert verify_dataset(small_run / name) == []


def test_counts_keys_and_columns(sets: dict[str, Dataset]) -> None:
    assert len(sets["heads"]) == 12
    index = sets["composites"].index.to_pylist()
    train = {row["subject"] for row in sets["heads"].index.to_pylist() if row["split"] == "train"}
    test = {row["subject"] for row in sets["heads"].index.to_pylist() if row["split"] == "test"}
    assert len(train) == 4 and len(test) == 2
    assert len(index) == 4 * 4 + 2 * 2
    for row in index:
        group = train if row["recipient"] in train else test
        assert {row["donor_nose"], row["donor_eyes"], row["donor_mouth"]} <= group
        assert row["subject"] == row["recipient"] and row["expression"] == "neutral"
    for part in ("nose", "eyes", "mouth"):
        to_others = Counter(r[f"donor_{part}"] for r in index if r[f"donor_{part}"] != r["recipient"])
        assert {to_others[s] for s in train} == {3} and {to_others[s] for s in test} == {1}
    assert sets["composites"].keys() == sorted(sets["composites"].keys())
    assert (
        set(sets["surfaces"].keys())
        == set(sets["heads"].keys()) | set(sets["composites"].keys())
        == set(sets["samples"].keys())
    )
    wanted = {
        "key",
        "shard",
        "status",
        "subject",
        "expression",
        "split",
        "recipient",
        "donor_nose",
        "donor_eyes",
        "donor_mouth",
    }
    for name in ("composites", "surfaces", "samples"):
        assert wanted <= set(sets[name].index.column_names)


def test_heads_share_faces_and_carry_landmarks(sets: dict[str, Dataset]) -> None:
    for name in ("heads", "composites"):
        ds = sets[name]
        region_map = RegionMap.from_json(ds.region_map)
        region_map.check_mesh(len(ds[ds.keys()[0]]["vertices"]), ds.faces, name)
        assert ds.mm_per_unit == 1.0
        for key in ds.keys()[:4]:
            item = ds[key]
            assert item["vertices"].dtype == np.float32
            assert np.array_equal(item["landmarks"], item["vertices"][region_map.landmarks68])


def test_composites_keep_the_host_and_the_morph_is_stepwise(sets: dict[str, Dataset]) -> None:
    heads, composites = sets["heads"], sets["composites"]
    region_map = RegionMap.from_json(composites.region_map)
    labels = region_map.vertex_labels("eyes")
    followed, parts = composites.shared["stage_vertices"], composites.shared["stage_parts"]
    assert np.array_equal(parts, labels[followed])
    skin = np.zeros(region_map.vertex_count, dtype=bool)
    skin[region_map.vertices_of("surface")] = True
    for row in composites.index.to_pylist():
        item, host = composites[row["key"]], heads[f"{row['recipient']}_e01"]
        outside = skin & (labels == 0)
        assert np.array_equal(item["vertices"][outside], host["vertices"][outside])
        if {row["donor_nose"], row["donor_eyes"], row["donor_mouth"]} == {row["recipient"]}:
            assert np.abs(item["vertices"] - host["vertices"]).max() < 2e-5
        stages = item["stage_points"]
        assert np.array_equal(stages[0], item["vertices"][followed]) and np.array_equal(stages[1], stages[0])
        for step, label in ((2, 1), (3, 2), (4, 3)):
            moved = (stages[step] != stages[step - 1]).any(axis=1)
            assert moved.any() and (parts[moved] == label).all()
        assert np.allclose(stages[5], composites.shared["template"][followed], atol=1e-4)
        assert item["transforms"].shape == (4, 4, 4)


def test_surfaces_are_watertight_and_go_back_to_mm(sets: dict[str, Dataset]) -> None:
    surfaces = sets["surfaces"]
    region_map = RegionMap.from_json(surfaces.region_map)
    for key in surfaces.keys()[::4]:
        item, row = surfaces[key], surfaces.row(key)
        mesh = trimesh.Trimesh(item["vertices"], item["faces"], process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2 and mesh.volume > 0
        assert np.linalg.norm(item["vertices"], axis=1).max() <= 1.0
        source = sets["heads" if row["origin"] == "scan" else "composites"][key]
        matrix = item["to_mm"]
        back = item["landmarks"][0] @ matrix[:3, :3].T + matrix[:3, 3]
        assert np.abs(back - source["landmarks"]).max() < 1e-3
        # The frame is the recipient's neutral head's, whatever the expression or the nose.
        neutral = sets["heads"][f"{row['recipient']}_e01"]
        assert np.abs(matrix[:3, 3] - head_origin(neutral["landmarks"].astype(float))).max() < 1e-3
        assert matrix[0, 0] == surfaces.mm_per_unit
        # Skin vertices are exactly the registered ones: every one of them is found again.
        skin = source["vertices"][np.setdiff1d(region_map.vertices_of("surface"), region_map.neck_crop_drop)]
        distance, *_ = igl.point_mesh_squared_distance(
            skin.astype(float), item["vertices"] @ matrix[:3, :3].T + matrix[:3, 3], item["faces"].astype(np.int64)
        )
        assert np.sqrt(distance.max()) < 1e-3
        assert set(np.unique(item["vertex_parts"]).tolist()) == {0, 1, 2, 3}
        assert 0 < item["face_cut"].mean() < 0.2


def test_the_template_stage_is_one_and_the_same_everywhere(sets: dict[str, Dataset]) -> None:
    surfaces = sets["surfaces"]
    first = surfaces[surfaces.keys()[0]]
    for key in surfaces.keys()[1:]:
        item = surfaces[key]
        assert np.array_equal(item["landmarks"][5], first["landmarks"][5])
        assert np.array_equal(item["stage_points"][5], first["stage_points"][5])


def test_samples_lie_where_they_say(sets: dict[str, Dataset]) -> None:
    for key in sets["samples"].keys()[::6]:
        item, surface = sets["samples"][key], sets["surfaces"][key]
        v, f = surface["vertices"].astype(float), surface["faces"].astype(np.int64)
        squared, _, _ = igl.point_mesh_squared_distance(item["surface_points"].astype(float), v, f)
        assert np.sqrt(squared.max()) < 1e-6
        assert np.abs(np.linalg.norm(item["surface_normals"], axis=1) - 1).max() < 1e-5
        outward = igl.winding_number(v, f, item["surface_points"] + 1e-4 * item["surface_normals"].astype(float))
        assert (outward < 0.5).mean() > 0.995  # closed lips touch and overlap: a few points are buried in the other lip
        for name in ("near", "free"):
            points = item[f"{name}_points"].astype(float)
            squared, _, _ = igl.point_mesh_squared_distance(points, v, f)
            inside = igl.winding_number(v, f, points) > 0.5
            assert np.abs(np.abs(item[f"{name}_sdf"]) - np.sqrt(squared)).max() < 1e-6
            assert np.array_equal(item[f"{name}_sdf"] < 0, inside)
            assert np.abs(np.linalg.norm(item[f"{name}_normals"], axis=1) - 1).max() < 1e-4
            # One step along the gradient reaches the surface.
            foot = points - item[f"{name}_sdf"][:, None] * item[f"{name}_normals"].astype(float)
            squared, *_ = igl.point_mesh_squared_distance(foot, v, f)
            assert np.sqrt(squared.max()) < 1e-4
        assert np.linalg.norm(item["free_points"], axis=1).max() <= 1
        assert all((item["surface_parts"] == label).sum() > 0.1 * 3000 for label in range(4)), "balanced half"


def test_any_window_is_a_uniform_random_subset(sets: dict[str, Dataset]) -> None:
    """Parts, octants and (for near points) distance bands are spread over any contiguous window as over the whole set.

    The p-values of right claims are uniform: about 5 % of them are below 0.05. Those of a set that is not shuffled are 0.
    """
    shuffled, sorted_by_category = [], []
    for key in sets["samples"].keys()[::3]:
        item = sets["samples"][key]
        for name in ("surface", "near", "free"):
            points = item[f"{name}_points"]
            categories = [(points > np.median(points, axis=0)) @ np.array([1, 2, 4])]
            if name != "free":
                categories.append(item[f"{name}_parts"])
            if name == "near":
                categories.append(
                    np.digitize(np.abs(item["near_sdf"]), np.quantile(np.abs(item["near_sdf"]), [0.25, 0.5, 0.75]))
                )
            for category in categories:
                for start in range(0, len(points) - 400, 400):
                    shuffled.append(window_uniformity(category, start, start + 400))
                    sorted_by_category.append(window_uniformity(np.sort(category), start, start + 400))
    found = np.array(shuffled)
    assert len(found) >= 200
    assert found.min() > 1e-6
    for level in (0.05, 0.25, 0.5, 0.75):
        assert abs((found < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / len(found)), level
    assert max(sorted_by_category) < 1e-6, "the test would notice a set that is not shuffled"


def test_part_labels_of_points_are_their_places(sets: dict[str, Dataset]) -> None:
    samples = sets["samples"]
    item = samples[samples.keys()[0]]
    landmarks = item["landmarks"][0]
    centre = {1: landmarks[30], 2: landmarks[36:48].mean(0), 3: landmarks[48:68].mean(0)}
    for label, where in centre.items():
        points = item["surface_points"][item["surface_parts"] == label]
        assert np.linalg.norm(np.median(points, axis=0) - where) * samples.mm_per_unit < 25


def test_the_sets_of_published_methods(small_run: Path, sets: dict[str, Dataset]) -> None:
    """Distances are exact, bands as wide and as much around the points of interest as asked for; all other arrays stay as they were."""
    plain = SampleParameters.parse({"surface": 300, "near": 200, "free": 100})
    both = plain.model_copy(update={"wide": 4000, "poi": 4000})
    assert not {name for name in plain.as_json() if name.startswith(("wide", "poi"))}
    assert SampleParameters.parse(both.as_json()) == both
    surfaces = sets["surfaces"]
    planned = plan_sample(surfaces, both, 0).schema
    assert set(planned.fields) - set(plan_sample(surfaces, plain, 0).schema.fields) == {
        f"{name}_{field}" for name in ("wide", "poi") for field in ("points", "sdf", "normals", "parts")
    }
    surface, scale = surfaces[surfaces.keys()[0]], surfaces.mm_per_unit
    before, item = (sample_item(surface, each, scale, True, np.random.default_rng(5)) for each in (plain, both))
    assert list(planned.fields) == [name for name in planned.fields if name in item] and set(item) == set(planned.fields)
    for name, array in before.items():
        assert array.tobytes() == item[name].tobytes(), name
    v, f = surface["vertices"].astype(float), surface["faces"].astype(np.int64)
    marks = surface["landmarks"][0].astype(float)
    interest = np.stack([marks[[36, 39]].mean(0), marks[[42, 45]].mean(0), marks[30], marks[[48, 54]].mean(0)])
    for name, sigmas in (("wide", (0.0707, 0.0224)), ("poi", (13.7 / scale, 1.37 / scale))):
        points = item[f"{name}_points"].astype(float)
        squared, *_ = igl.point_mesh_squared_distance(points, v, f)
        assert np.abs(np.abs(item[f"{name}_sdf"]) - np.sqrt(squared)).max() < 1e-6
        assert np.array_equal(item[f"{name}_sdf"] < 0, igl.winding_number(v, f, points) > 0.5)
        # On a surface that is nearly flat, the distance of a point is its offset along the normal, which is Gaussian.
        narrow = stats.norm.cdf(sigmas[1] / np.array(sigmas)) - stats.norm.cdf(-sigmas[1] / np.array(sigmas))
        assert (np.sqrt(squared) < sigmas[1]).mean() == pytest.approx(narrow.mean(), abs=0.06)
    drawn = sample_interesting(v, f, surface["face_cut"] == 0, marks, both, scale, np.random.default_rng(0))
    seeds = np.linalg.norm(drawn.points[:, None] - interest, axis=2).min(axis=1)
    assert (seeds <= 41.0 / scale).mean() == 0.8 and (seeds[:400] <= 41.0 / scale).mean() == pytest.approx(0.8, abs=0.08)
    near = {
        name: (np.linalg.norm(item[f"{name}_points"][:, None] - interest, axis=2).min(axis=1) * scale < 41).mean()
        for name in ("wide", "poi")
    }
    assert near["poi"] > 0.65 > 2 * near["wide"]


def test_frontal_solid_and_paper_sheet(small_run: Path, tmp_path: Path, sync: EngineOptions) -> None:
    clean([small_run / "composites"], tmp_path / "frontal", {"mode": "frontal"}, options=sync)
    shared = template_topology(open_dataset(tmp_path / "frontal"))
    assert 0.99 < np.linalg.norm(shared["template_vertices"], axis=1).max() <= 1.0 + 1e-6
    closed = np.concatenate([shared["template_vertices"], shared["template_cap_vertices"]])
    assert np.linalg.norm(closed, axis=1).max() <= 1.0 + 1e-6 and shared["template_cap_faces"].max() < len(closed)
    assert len(shared["template_ids"]) < len(open_dataset(small_run / "samples").shared["template_ids"])
    frontal = open_dataset(tmp_path / "frontal")
    assert frontal.mm_per_unit == 100.0
    item = frontal[frontal.keys()[0]]
    mesh = trimesh.Trimesh(item["vertices"], item["faces"], process=False)
    assert mesh.is_watertight and mesh.euler_number == 2
    assert np.allclose(item["landmarks"][0, 30], [0, 0, 0.4], atol=1e-5)
    assert 0.2 < mesh.area_faces[item["face_cut"] == 1].sum() / mesh.area < 0.8

    clean([small_run / "composites"], tmp_path / "paper", {"preset": "paper"}, options=sync)
    sample(tmp_path / "paper", tmp_path / "points", {"preset": "paper", "surface": 2000, "free": 500}, options=sync)
    sheet = open_dataset(tmp_path / "paper")
    row = sheet.index.to_pylist()[0]
    assert row["closed"] is False
    points = open_dataset(tmp_path / "points")
    item = points[points.keys()[0]]
    assert item["near_points"].shape == (0, 3) and (item["surface_normals"][:, 2] >= 0).all()
    assert (item["free_sdf"] < 0).mean() > 0.05


def test_a_subjects_neutral_stages_are_the_same_in_all_its_items(small_run: Path, tmp_path: Path, sync: EngineOptions) -> None:
    """Preset paper moves each scan to its own nose tip; the codes of the parts are shared, and so must be what they have to explain."""
    clean([small_run / "composites", small_run / "heads"], tmp_path / "paper", {"preset": "paper"}, options=sync)
    sheets = open_dataset(tmp_path / "paper")
    neutral = {row["subject"]: sheets[row["key"]] for row in sheets.index.to_pylist() if row["origin"] == "scan" and row["expression"] == "neutral"}
    outline, moved = list(range(17)), 0.0
    for row in sheets.index.to_pylist():
        item, own = sheets[row["key"]], neutral[row["subject"]]
        tip = item["landmarks"][0, 30]
        if row["origin"] == "scan":
            assert np.allclose(tip, [0, 0, 0.4], atol=1e-5), "a scan lies about its own nose tip"
            assert np.array_equal(item["landmarks"][1:], own["landmarks"][1:])
            assert np.array_equal(item["stage_points"][1:], own["stage_points"][1:])
            moved = max(moved, float(np.abs(item["to_mm"][:3, 3] - own["to_mm"][:3, 3]).max()))
        else:
            assert np.allclose(item["landmarks"][0], item["landmarks"][1]), "no expression moves a composite"
            assert np.allclose(item["landmarks"][1, outline], own["landmarks"][1, outline], atol=1e-5)
            assert np.array_equal(item["to_mm"], own["to_mm"])
        back = item["landmarks"][0] @ item["to_mm"][:3, :3].T + item["to_mm"][:3, 3]
        source = open_dataset(small_run / ("heads" if row["origin"] == "scan" else "composites"))
        assert np.allclose(back, source[row["key"]]["landmarks"], atol=1e-3)
    assert moved > 0.01, "expressions move the nose tip, or this test shows nothing"


def test_a_backend_that_is_not_installed_stops_before_the_first_item(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: EngineOptions
) -> None:
    monkeypatch.setitem(sys.modules, "mesh_to_sdf", None)
    with pytest.raises(ParameterError, match=r"mesh-to-sdf is not installed .*pip install 'facegraft\[paper\]'"):
        sample(small_run / "surfaces", tmp_path / "s", {"backend": "mesh-to-sdf"}, options=sync)
    recipe = load_recipe(find_recipe("demo")).override(["sample.backend=mesh-to-sdf"])
    with pytest.raises(FacegraftError, match=r"mesh-to-sdf is not installed"):
        run_recipe(recipe, None, tmp_path / "run", 0, sync)
    assert not (tmp_path / "s").exists() and not (tmp_path / "run").exists()


def test_a_backend_of_sheets_is_refused_for_closed_heads(small_run: Path, tmp_path: Path, sync: EngineOptions) -> None:
    with pytest.raises(SampleError, match=r"sample\.backend=height_field is for open sheets, but \S+ and \d+ others are closed"):
        sample(small_run / "surfaces", tmp_path / "s", {"backend": "height_field"}, options=sync)


def test_heads_alone_have_one_stage(small_run: Path, tmp_path: Path, sync: EngineOptions) -> None:
    clean([small_run / "heads"], tmp_path / "s", {"stage_points": 64}, options=sync)
    assert template_topology(open_dataset(tmp_path / "s")) == {}
    surfaces = open_dataset(tmp_path / "s")
    item = surfaces[surfaces.keys()[0]]
    assert item["landmarks"].shape == (1, 68, 3) and item["stage_points"].shape == (1, 64, 3)
    assert surfaces.row(surfaces.keys()[0])["donor_nose"] == "s0001"


def test_a_head_that_leaves_the_ball_is_rejected_with_the_scale_it_needs(small_run: Path, tmp_path: Path) -> None:
    lenient = EngineOptions(scheduler="sync", progress=False, max_rejects=1.0)
    clean([small_run / "composites"], tmp_path / "s", {"mm_per_unit": 100.0}, options=lenient)
    rows = open_dataset(tmp_path / "s").index.to_pylist()
    assert {row["status"] for row in rows} == {"rejected"}
    assert "larger clean.mm_per_unit" in rows[0]["reason"]


def test_a_region_set_whose_disks_overlap_is_not_grafted(tmp_path: Path, sync: EngineOptions) -> None:
    """Of two such disks one graft would overwrite the other, by the order of their names."""
    shipped = load_region_map("synthetic")
    nose = shipped.region_set("eyes").regions["nose"]
    beak = replace(nose, disks={"beak": nose.disks["nose"]})
    replace(shipped, regions={"mine": RegionSet("mine", {"nose": nose, "beak": beak})}).save(tmp_path / "mine.json")
    options = {"kind": "synthetic", "subjects": 4, "expressions": 1, "region_map": str(tmp_path / "mine.json")}
    ingest(None, tmp_path / "heads", options, options=sync)
    with pytest.raises(GraftError, match=r"region set 'mine' of topology synthetic: disks beak and nose share \d+ vertices"):
        graft(tmp_path / "heads", tmp_path / "x", {"region_set": "mine", "donors": 1}, options=sync)
    assert not (tmp_path / "x").exists()


def test_stages_refuse_each_others_inputs(small_run: Path, tmp_path: Path, sync: EngineOptions) -> None:
    with pytest.raises(GraftError, match="kind 'heads'"):
        graft(small_run / "surfaces", tmp_path / "x", {}, options=sync)
    with pytest.raises(CleanError, match="'composites' and 'heads'"):
        clean([small_run / "samples"], tmp_path / "x", {}, options=sync)
    with pytest.raises(SampleError, match="kind 'surfaces'"):
        sample(small_run / "heads", tmp_path / "x", {}, options=sync)
    with pytest.raises(CleanError, match="two inputs hold an item"):
        clean([small_run / "heads", small_run / "heads"], tmp_path / "x", {}, options=sync)
    assert not (tmp_path / "x").exists()


def test_samples_share_the_template_on_the_vertices_of_the_topology(sets: dict[str, Dataset]) -> None:
    samples, surfaces = sets["samples"], sets["surfaces"]
    shared, region_map = samples.shared, RegionMap.from_json(samples.region_map)
    vertices, faces, ids = (shared[f"template_{name}"] for name in ("vertices", "faces", "ids"))
    assert (vertices.dtype, faces.dtype, ids.dtype) == (np.float32, np.int32, np.int32)
    assert shared["template_parts"].dtype == np.uint8 and (np.diff(ids) > 0).all()
    assert np.array_equal(shared["template_parts"], region_map.vertex_labels("eyes")[ids])
    # Both are rounded to float32, the stage points twice; the stage vertices are skin that no cut removes.
    stage = samples.read(samples.keys()[0], "stage_points")[-1]
    assert np.isin(shared["stage_vertices"], ids).all()
    assert np.abs(vertices[np.searchsorted(ids, shared["stage_vertices"])] - stage).max() < 2e-7
    # Each triangle is one of the topology's skin, and the skin above the neck cut is all there.
    skin = {tuple(face) for face in region_map.skin_faces(surfaces.shared["faces"]).tolist()}
    own = {tuple(face) for face in ids[faces].tolist()}
    assert own <= skin and len(own) == len(faces)
    kept = set(region_map.kept_skin().tolist())
    assert {face for face in skin if kept.issuperset(face)} <= own
    assert signed_volume(vertices, faces) > 0


def test_samples_share_what_closes_the_template(sets: dict[str, Dataset]) -> None:
    """Skin and caps are one watertight mesh, the template as cleaning closes it, whose faces all heads have."""
    shared, surfaces = sets["samples"].shared, sets["surfaces"]
    own, added = shared["template_cap_vertices"], shared["template_cap_faces"]
    assert (own.dtype, added.dtype) == (np.float32, np.int32) and len(added)
    vertices = np.concatenate([shared["template_vertices"], own])
    faces = np.concatenate([shared["template_faces"], added])
    closed = trimesh.Trimesh(vertices, faces, process=False)
    assert closed.is_watertight and closed.is_winding_consistent and closed.volume > 0
    of_head = surfaces[surfaces.keys()[0]]["faces"]
    assert len(faces) == len(of_head) and len(vertices) == of_head.max() + 1


def test_the_rims_of_openings_are_stage_points(sets: dict[str, Dataset]) -> None:
    """Caps move by their rims, so the rims are followed; never more than half of the points."""
    region_map = RegionMap.from_json(sets["heads"].region_map)
    rims = np.intersect1d(np.concatenate(list(region_map.openings.values())), region_map.kept_skin())
    assert len(rims) > 100
    many = choose_stage_vertices(region_map, 2 * len(rims))
    assert len(many) == 2 * len(rims) and np.isin(rims, many).all() and (np.diff(many) > 0).all()
    few = choose_stage_vertices(region_map, 40)
    assert len(few) == 40 and np.isin(few, rims).sum() == 20
    assert len(choose_stage_vertices(region_map, 10**6)) == len(region_map.kept_skin())
