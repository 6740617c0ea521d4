"""A family of synthetic heads: one topology, named identity parameters, expressions, 68 landmarks.

    head(sample_identity(rng), "smile")

gives vertices [V, 3] in mm over the faces of `template()`. Nothing is read from disk; the same coefficients give the
same head on every machine, up to rounding. The frame is +y up, +z out of the face, +x to the subject's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats
from facegraft.errors import FacegraftError, nearest
from facegraft.heads.synthetic.expression import EXPRESSIONS, RECIPES, close_lids, expression_fields, lids
from facegraft.heads.synthetic.features import EYE_CENTRE, EYE_RADIUS
from facegraft.heads.synthetic.identity import CLIP, IDENTITY_NAMES, identity_fields, sample_identity
from facegraft.heads.synthetic.template import SyntheticTemplate, template

__all__ = [
    "CLIP",
    "EXPRESSIONS",
    "IDENTITY_NAMES",
    "SyntheticHeadError",
    "SyntheticTemplate",
    "head",
    "sample_identity",
    "template",
]


class SyntheticHeadError(FacegraftError):
    """Unusable coefficients, or an expression that the synthetic family does not have."""


def head(identity: ArrayLike, expression: str = "neutral", strength: float = 1.0) -> Floats:
    """Vertices [V, 3] in mm of one subject with one expression.

    identity: coefficients [len(IDENTITY_NAMES)] in standard deviations; zeros give the template.
    strength: 0 is neutral, 1 the full expression.
    Raises SyntheticHeadError for a wrong number of coefficients, a non-finite one, or an unknown expression.
    """
    coefficients = np.asarray(identity, dtype=np.float64)
    if coefficients.shape != (len(IDENTITY_NAMES),):
        raise SyntheticHeadError(
            f"identity has shape {coefficients.shape}; a synthetic head takes {len(IDENTITY_NAMES)} coefficients"
        )
    if not np.isfinite(coefficients).all():
        name = IDENTITY_NAMES[int(np.argmin(np.isfinite(coefficients)))]
        raise SyntheticHeadError(f"identity coefficient '{name}' is not finite; give a number of standard deviations")
    if not np.isfinite(strength):
        raise SyntheticHeadError(f"expression strength is {strength}; give a finite number, usually between 0 and 1")
    if expression not in RECIPES:
        raise SyntheticHeadError(f"unknown expression {expression!r}{nearest(expression, EXPRESSIONS)}")
    shape = template()
    fields = identity_fields()
    vertices = shape.vertices + (coefficients @ fields.reshape(len(fields), -1)).reshape(-1, 3)
    if expression != "neutral" and strength != 0:
        vertices += strength * expression_fields()[expression]
        vertices = close_lids(vertices, strength * RECIPES[expression].lids)
    return _clear_eyeballs(vertices)


def _clear_eyeballs(vertices: Floats) -> Floats:
    """Move the lids off the subject's eyeballs, to the distance that the template's lids have from its eyeballs."""
    shape = template()
    for eye, name, side in zip(lids(), ("eyeball_left", "eyeball_right"), (1, -1), strict=True):
        start, stop = shape.groups[name][0][0]
        ball = vertices[start:stop]
        centre = ball.mean(axis=0)
        radius = np.linalg.norm(ball - centre, axis=1).mean()
        rings = eye.rings[1:]
        rest = np.linalg.norm(shape.vertices[rings] - EYE_CENTRE * [side, 1, 1], axis=-1) - EYE_RADIUS
        arm = vertices[rings] - centre
        distance = np.linalg.norm(arm, axis=-1)
        least = radius + np.minimum(rest, 1.2)
        lift = np.maximum(least / distance, 1.0)
        vertices[rings] = centre + arm * lift[..., None]
    return vertices
