"""The stages of the pipeline, in order. A new stage is one file and one entry in STAGES: the pipeline, recipes, commands, the report
and `verify --deep` iterate over it.

A stage's module has `Parameters` (a StageParameters), `plan(inputs, parameters, seed)` → StagePlan, and the class `<Name>Stage` that
makes one item. Modules are imported on first use, so that listing the stages is fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facegraft.engine import StagePlan
    from facegraft.stages.parameters import StageParameters
    from facegraft.store.remote import Location


@dataclass(frozen=True)
class StageDefinition:
    """One stage.

    name: of its command and of its section in recipes. makes: kind of its dataset, and name of its folder in a run. reads: kinds of
    its input datasets; empty for ingest. many: whether its command takes several datasets.
    help: the text of its command. shortcuts: parameters that the command also takes as separate options.
    """

    name: str
    makes: str
    reads: tuple[str, ...]
    help: str
    shortcuts: tuple[str, ...] = ()
    many: bool = False

    @property
    def path(self) -> str:
        """Import path of the class that makes items, as recorded in a run."""
        return f"facegraft.stages.{self.name}:{self.name.capitalize()}Stage"

    @property
    def parameters(self) -> type[StageParameters]:
        """The class of its parameters."""
        found: type[StageParameters] = self._module().Parameters
        return found

    def plan(self, inputs: Sequence[Location], parameters: StageParameters, seed: int) -> StagePlan:
        """Plan the stage's items. Raises the errors of the stage's own `plan`."""
        found: StagePlan = self._module().plan(inputs, parameters, seed)
        return found

    def _module(self) -> Any:
        return importlib.import_module(self.path.partition(":")[0])


INGEST = StageDefinition(
    "ingest",
    makes="heads",
    reads=(),
    help="""Read SOURCE into a dataset of heads: one topology, millimetres, split by subject.

    \b
    Example: facegraft ingest FaceXModel --kind ict --subjects 12 --expressions 2 --seed 0 -o heads
             facegraft ingest scans --kind meshes --region-map flame --check -o check.html
    """,
    shortcuts=("kind", "subjects", "expressions", "region_map", "landmarks"),
)
GRAFT = StageDefinition(
    "graft",
    makes="composites",
    reads=("heads",),
    help="""Make composite heads: move noses, eyes, mouths and other parts between the neutral HEADS.

    \b
    Example: facegraft graft heads -o composites --donors 4 --seed 0
    """,
    shortcuts=("donors", "region_set", "preset"),
)
CLEAN = StageDefinition(
    "clean",
    makes="surfaces",
    reads=("composites", "heads"),
    help="""Close every head of the INPUTS (composites, heads) to a watertight surface in the unit ball.

    \b
    Example: facegraft clean composites heads -o surfaces --mode head
    """,
    shortcuts=("mode", "preset"),
    many=True,
)
SAMPLE = StageDefinition(
    "sample",
    makes="samples",
    reads=("surfaces",),
    help="""Sample points, normals and signed distances of every surface.

    \b
    Example: facegraft sample surfaces -o samples --set surface=20000 --set near=5000 --set free=2000
    """,
    shortcuts=("preset",),
)

STAGES = (INGEST, GRAFT, CLEAN, SAMPLE)


def stage_at(path: str) -> StageDefinition | None:
    """The stage whose class has this import path; None for one that is not facegraft's own."""
    return next((stage for stage in STAGES if stage.path == path), None)
