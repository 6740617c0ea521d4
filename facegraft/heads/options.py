"""Options of the sources of heads. Every source declares which of these it takes, and may add its own.

The parameters of the ingest stage are the options of all sources; an option of the same name means the same in each.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from facegraft.heads.alignment import Alignment
from facegraft.settings import as_name
from facegraft.store.remote import in_home

Name = Annotated[str, BeforeValidator(as_name)]
"""A name as it was written: 010 is not 8."""
PathName = Annotated[str, BeforeValidator(lambda value: in_home(as_name(value)))]
"""The path of a file, or a name instead of one."""


def _count_or_names(value: Any) -> Any:
    """A count, or a tuple of names. Raises ValueError, in words."""
    if isinstance(value, str | bool | float):
        raise ValueError(f"write a number, or a list of names: [{value}]")
    return tuple(map(as_name, value)) if isinstance(value, list | tuple) else value


class SourceOptions(BaseModel):
    """Options of every source: how many subjects and which expressions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subjects: int | None = Field(
        None, ge=1, description="how many subjects (default: 40 of a computed family, all of a folder)"
    )
    expressions: Annotated[int | tuple[str, ...] | None, BeforeValidator(_count_or_names)] = Field(
        None,
        description="the first so many expressions, or their names (default: 3 of a computed family, all of a folder)",
    )

    @model_validator(mode="after")
    def _some_expressions(self) -> Self:
        if (isinstance(self.expressions, int) and self.expressions < 1) or self.expressions == ():
            raise ValueError("expressions must be 1 or more, or a list of names")
        return self


class ComputedOptions(SourceOptions):
    """Options of families of heads that are computed from random coefficients."""

    first_subject: int = Field(
        1, ge=1, description="number of the first subject of a computed family; other numbers give other heads"
    )
    sigma: float = Field(
        1.0, ge=0, description="spread of the identity coefficients, in standard deviations of the family"
    )
    symmetrise: float = Field(
        0.0, ge=0, le=1, description="pull of computed heads to mirror symmetry: 0 as drawn, 1 symmetric"
    )


class MappedOptions(SourceOptions):
    """Options of everything that takes a region map of one's own."""

    region_map: PathName | None = Field(
        None, description="region map of the meshes: a file, a dataset, or the name of a shipped topology"
    )


class SyntheticOptions(ComputedOptions, MappedOptions):
    """Options of kind `synthetic`."""


class MeshOptions(MappedOptions):
    """Options of all sources that read mesh files."""

    mm_per_unit: float | None = Field(None, gt=0, description="unit of the meshes, where it is not the region map's")


class FolderOptions(MeshOptions):
    """Options of folders of meshes."""

    template: PathName | None = Field(None, description="a mesh that shows the topology's triangles, where the heads do not")
    align: Alignment | None = Field(
        None,
        description="take out the heads' pose: rigid (of kind flame the default), or similarity, which also takes out their size; none: as "
        "they are",
    )
    landmarks: PathName | None = Field(
        None, description="a file of 68 vertex indices, to build the region map of a topology that has none"
    )
    landmarks_key: Name | None = Field(None, description="the array of the landmark file, where it holds several")
    neutral: Name | None = Field(
        None,
        description="the name that neutral heads have in the files (default: `neutral`, or, where there is none, whatever a subject's only mesh "
        "is called); first: each subject's first mesh",
    )
    draw: int | None = Field(
        None, ge=1, description="so many subjects drawn at random by the seed of the run (all, where there are fewer)"
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.draw is not None and self.subjects is not None:
            raise ValueError("give either subjects, the first so many, or draw, so many at random")
        if self.landmarks is not None and self.region_map is not None:
            raise ValueError("give either region_map, or landmarks to build one")
        if self.landmarks_key is not None and self.landmarks is None:
            raise ValueError("landmarks_key names an array of the file landmarks; give landmarks too")
        return self


class FlameOptions(FolderOptions):
    """Options of kind `flame`."""

    flame_model: PathName | None = Field(
        None, description="the FLAME model (npz or pkl), to compute heads from the betas of FLAME_parameters"
    )

    @model_validator(mode="after")
    def _no_meshes_with_a_model(self) -> Self:
        if self.flame_model is not None:
            for name in ("template", "landmarks", "neutral"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for meshes; with flame_model heads are computed, so leave it out")
        return self


class IctOptions(ComputedOptions, MeshOptions):
    """Options of kind `ict`."""

    clip: float = Field(2.5, gt=0, description="largest identity coefficient, in the same unit")
