"""One off-screen studio for all pictures: a plotter that is opened once, three lights fixed to the camera, a long lens.

Pictures have a transparent background, so that they suit light and dark pages.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facegraft.arrays import Floats
from facegraft.doctor import RENDER
from facegraft.report.errors import ReportError

LENS_DEG = 14.0
"""Vertical angle of view: about 100 mm on a full-frame camera, so that noses look as they do in portraits."""

SUPERSAMPLING = 2
"""Supersampling factor: pixels drawn for each pixel of the picture, along each side."""

# Position in the camera's own frame (it sits at (0, 0, 1) and looks at the origin), intensity, colour.
LIGHTS = (
    ((-0.75, 0.70, 0.85), 0.74, "#fff6ec"),
    ((0.95, 0.05, 0.75), 0.30, "#eaf1ff"),
    ((0.35, 0.95, -0.55), 0.35, "#ffffff"),
    ((0.0, 0.0, 1.0), 0.20, "#ffffff"),
)
AMBIENT, DIFFUSE, SPECULAR, SHININESS = 0.20, 0.92, 0.08, 14.0

NO_OPENGL = (
    "no picture can be drawn on this machine: off-screen rendering {what}; "
    "install Mesa (Debian: apt-get install libgl1 libegl1) and look at `facegraft doctor`"
)


@dataclass(frozen=True)
class Camera:
    """A camera: focus [3] in the scene's units, height of the picture there, turn about +y and tilt.

    turn_deg 0 looks at the face from the front, 90 from the subject's left side (+x); tilt_deg above 0 looks down.
    """

    focus: Floats
    height: float
    turn_deg: float = 0.0
    tilt_deg: float = 0.0

    def position(self) -> Floats:
        """Position [3] from which the lens shows `height` at the focus."""
        turn, tilt = np.radians(self.turn_deg), np.radians(self.tilt_deg)
        away = np.array([np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)])
        return np.asarray(self.focus + away * self.height / (2 * np.tan(np.radians(LENS_DEG / 2))))


@dataclass(frozen=True)
class Body:
    """Something to draw: points [n, 3] with colours [n, 3] in 0..1 and, of a surface, faces [f, 3] and normals [n, 3].

    Surfaces are lit. Without faces the points are drawn unlit in their colours: as dots of `size` pixels, or, where
    `closed_line` is set, as the closed curve through them, `size` pixels wide.
    """

    points: Floats
    colours: Floats
    faces: NDArray[np.int64] | None = None
    normals: Floats | None = None
    size: float = 4.0
    closed_line: bool = False


class Studio:
    """The plotter, as a context manager; `probe` comes from `start_probe`. Raises ReportError where this machine cannot draw."""

    def __init__(self, probe: subprocess.Popen[str]) -> None:
        require_rendering(probe)
        import pyvista
        from vtkmodules.vtkCommonCore import vtkLogger

        # Without a display VTK warns on its way to EGL, on every machine without a screen.
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
        self._pyvista: Any = pyvista
        self._plotter: Any = self._pyvista.Plotter(off_screen=True, lighting="none")
        self._plotter.render_window.SetMultiSamples(0)  # supersampled here, because this works together with transparency
        for position, intensity, colour in LIGHTS:
            self._plotter.add_light(
                pyvista.Light(position=position, intensity=intensity, color=colour, light_type="camera light")
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plotter.close()

    def shoot(self, bodies: Sequence[Body], camera: Camera, size: tuple[int, int]) -> Image.Image:
        """An RGBA picture of `size` (width, height) pixels."""
        plotter = self._plotter
        plotter.clear_actors()
        window = [SUPERSAMPLING * length for length in size]
        if list(plotter.window_size) != window:  # setting it renders the scene once more
            plotter.window_size = window
        for body in bodies:
            self._place(body)
        plotter.camera.position = camera.position()
        plotter.camera.focal_point = camera.focus
        plotter.camera.up = (0.0, 1.0, 0.0)
        plotter.camera.view_angle = LENS_DEG
        plotter.renderer.ResetCameraClippingRange()
        plotter.render()
        pixels = np.asarray(plotter.screenshot(transparent_background=True, return_img=True))
        return Image.fromarray(pixels).reduce(SUPERSAMPLING)

    def _place(self, body: Body) -> None:
        colours = np.round(255 * np.clip(body.colours, 0, 1)).astype(np.uint8)
        look: dict[str, Any] = {"rgb": True, "scalars": "colours", "render": False, "copy_mesh": False}
        if body.faces is not None:
            mesh = self._pyvista.PolyData.from_regular_faces(body.points.astype(np.float32), body.faces)
            mesh.point_data["colours"] = colours
            mesh.point_data.active_normals = np.asarray(body.normals, dtype=np.float32)
            actor = self._plotter.add_mesh(
                mesh,
                ambient=AMBIENT,
                diffuse=DIFFUSE,
                specular=SPECULAR,
                specular_power=SHININESS,
                **look,
            )
            actor.prop.interpolation = "Phong"
        elif body.closed_line:
            count = len(body.points)
            lines = np.column_stack([np.full(count, 2), np.arange(count), np.roll(np.arange(count), -1)])
            mesh = self._pyvista.PolyData(body.points.astype(np.float32), lines=lines)
            mesh.point_data["colours"] = colours
            self._plotter.add_mesh(
                mesh,
                line_width=SUPERSAMPLING * body.size,
                lighting=False,
                render_lines_as_tubes=False,
                **look,
            )
        else:
            mesh = self._pyvista.PolyData(body.points.astype(np.float32))
            mesh.point_data["colours"] = colours
            self._plotter.add_mesh(
                mesh,
                style="points",
                point_size=SUPERSAMPLING * body.size,
                render_points_as_spheres=False,
                lighting=False,
                **look,
            )


def start_probe() -> subprocess.Popen[str]:
    """Start to draw a sphere in a separate process: a broken driver may crash it, and must not crash this one."""
    return subprocess.Popen([sys.executable, "-c", RENDER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def require_rendering(probe: subprocess.Popen[str], timeout_s: float = 120.0) -> None:
    """Wait for the probe. Raises ReportError, with what to do, unless it has drawn its sphere."""
    try:
        out, err = probe.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.communicate()
        raise ReportError(NO_OPENGL.format(what=f"gave nothing within {timeout_s:.0f} s")) from None
    if probe.returncode != 0:
        last = (err.strip().splitlines() or [f"exit {probe.returncode}"])[-1]
        raise ReportError(NO_OPENGL.format(what=f"failed ({last})"))
    if "True" not in out:
        raise ReportError(NO_OPENGL.format(what="gave an empty picture"))
