"""Tests of a source of heads: a pytest class to inherit from.

    class TestMine(HeadSourceSuite):
        kind = "mine"

        def case(self, folder):
            write_my_heads(folder)  # two subjects or more
            return SourceCase(folder, {"region_map": "ict"})

It calls `make_source`, so the kind must be registered in `facegraft.heads.source.KINDS`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from facegraft.heads.errors import SourceError
from facegraft.heads.names import head_key
from facegraft.heads.options import SourceOptions
from facegraft.heads.sanity import check_head
from facegraft.heads.source import KINDS, Head, HeadSource, Loader, SourcePlan, make_source
from facegraft.meshfiles.errors import MeshError
from facegraft.regions.regionmap import RegionMap
from facegraft.store.schema import check_row

SEED = 5


@dataclass(frozen=True)
class SourceCase:
    """Heads for a suite: their path (None where the source computes them) and the options to read them.

    unusable: keys of heads (`s0001_e02`, …) that the source must refuse when they are loaded; all others must load.
    """

    path: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    unusable: frozenset[str] = frozenset()


def key_of(head: Head) -> str:
    """The head's key in a dataset."""
    return head_key(head.subject, head.number, head.expression)


class HeadSourceSuite:
    """Inherit from this class, set the kind, and define a case."""

    kind: ClassVar[str]

    def case(self, folder: Path) -> SourceCase:
        """The heads to read; files may be written to the folder, which is new for each test."""
        raise NotImplementedError(f"{type(self).__name__} must say which heads to read: override case(folder)")

    @pytest.fixture
    def made(self, tmp_path: Path) -> SourceCase:
        return self.case(tmp_path)

    @pytest.fixture
    def plan(self, made: SourceCase) -> SourcePlan:
        return self.source(made).plan()

    def source(self, made: SourceCase, **more: Any) -> HeadSource:
        """The source of the case, with more options."""
        return make_source(self.kind, made.path, {**made.options, **more}, SEED)

    def loader(self, made: SourceCase, plan: SourcePlan) -> Loader:
        """The loader as a worker makes it: from a new source, with the shared arrays read back from bytes."""
        shared = pickle.loads(pickle.dumps({"faces": plan.faces, **plan.shared}))
        return self.source(made).loader(shared, RegionMap.from_json(json.loads(json.dumps(plan.region_map.to_json()))))

    def loaded(self, made: SourceCase, plan: SourcePlan) -> dict[str, bytes]:
        """The bytes of every usable head, by key."""
        load = self.loader(made, plan)
        return {key_of(h): load(h.spec).tobytes() for h in plan.heads if key_of(h) not in made.unusable}

    # -- the registration ------------------------------------------------------------------------------------------------

    def test_it_is_registered_with_its_options(self) -> None:
        """An option of one name means the same in every source, and each has a default and a help text."""
        source = KINDS[self.kind].source
        assert issubclass(source, HeadSource) and issubclass(source.Options, SourceOptions)
        for name, option in source.Options.model_fields.items():
            assert option.description, f"option {name} has no description"
            assert not option.is_required(), f"option {name} has no default"
            for kind, other in KINDS.items():
                theirs = other.source.Options.model_fields.get(name, option)
                same = (theirs.annotation, theirs.default) == (option.annotation, option.default)
                assert same, f"option {name} has another type or default in kind {kind}"

    def test_a_path_is_asked_for_where_files_are_read(self, made: SourceCase, tmp_path: Path) -> None:
        reads_files = KINDS[self.kind].reads_files
        wrong = None if reads_files else tmp_path
        with pytest.raises(SourceError, match="name its folder" if reads_files else "reads no files"):
            make_source(self.kind, wrong, made.options, SEED)
        if reads_files:
            with pytest.raises(SourceError, match="there is no such"):
                make_source(self.kind, tmp_path / "missing", made.options, SEED)

    # -- the plan --------------------------------------------------------------------------------------------------------

    def test_the_plan_can_become_items(self, made: SourceCase, plan: SourcePlan) -> None:
        """Keys are unique, specs survive JSON, rows match their columns, files exist, and the triangles are the region map's."""
        keys = [key_of(head) for head in plan.heads]
        assert len(set(keys)) == len(keys) and len({head.subject for head in plan.heads}) >= 2
        assert made.unusable < set(keys), "unusable heads must be planned, and not be all"
        plan.region_map.check_mesh(plan.region_map.vertex_count, plan.faces, "the plan's faces")
        for head in plan.heads:
            assert json.loads(json.dumps(head.spec)) == head.spec
            assert head.row.keys() == plan.columns.keys()
            check_row(key_of(head), head.row, plan.columns)
        files = {*plan.files, *(head.source for head in plan.heads if head.source is not None)}
        if made.path is None:
            assert not files and plan.identity, "a family that is computed must say in `identity` what stands for its input"
        else:
            root = made.path if made.path.is_dir() else made.path.parent
            assert files and all((root / file).is_file() for file in files)

    def test_the_plan_is_the_same_each_time(self, made: SourceCase, plan: SourcePlan) -> None:
        again = self.source(made).plan()
        assert again.heads == plan.heads and again.identity == plan.identity and again.files == plan.files
        assert again.shared.keys() == plan.shared.keys()
        assert all(np.array_equal(again.shared[name], plan.shared[name]) for name in plan.shared)

    def test_fewer_subjects_are_the_first_of_all(self, made: SourceCase, plan: SourcePlan) -> None:
        """The heads of a subject do not depend on how many others there are."""
        fewer = self.source(made, subjects=1).plan()
        first = [head for head in plan.heads if head.subject == plan.heads[0].subject]
        assert [key_of(head) for head in fewer.heads] == [key_of(head) for head in first]
        whole = self.loaded(made, plan)
        assert self.loaded(made, fewer).items() <= whole.items()

    def test_what_is_not_there_is_refused(self, made: SourceCase) -> None:
        with pytest.raises(SourceError, match="no_such_expression"):
            self.source(made, expressions=("no_such_expression",)).plan()

    # -- the heads -------------------------------------------------------------------------------------------------------

    def test_heads_are_in_the_common_frame(self, made: SourceCase, plan: SourcePlan) -> None:
        """Finite vertices [V, 3] in mm, +y up and +z out of the face."""
        load = self.loader(made, plan)
        for head in plan.heads:
            if key_of(head) in made.unusable:
                continue
            vertices = load(head.spec)
            assert vertices.shape == (plan.region_map.vertex_count, 3) and vertices.dtype == np.float64
            assert np.isfinite(vertices).all()
            check_head(vertices, plan.region_map.landmarks68, 1.0, key_of(head))

    def test_heads_do_not_depend_on_the_order(self, made: SourceCase, plan: SourcePlan) -> None:
        """Any worker may load any head any number of times; changing a loaded head does not change another."""
        load, whole = self.loader(made, plan), self.loaded(made, plan)
        assert len(set(whole.values())) > 1, "all heads of the case are the same: give different ones"
        for head in [*reversed(plan.heads), *plan.heads]:
            if key_of(head) not in made.unusable:
                vertices = load(head.spec)
                assert vertices.tobytes() == whole[key_of(head)]
                if vertices.flags.writeable:
                    vertices[:] = 0.0

    def test_unusable_heads_are_refused_by_themselves(self, made: SourceCase, plan: SourcePlan) -> None:
        load = self.loader(made, plan)
        refused = set()
        for head in plan.heads:
            try:
                load(head.spec)
            except MeshError as error:
                assert str(error) and "\n" not in str(error)
                refused.add(key_of(head))
        assert refused == made.unusable
