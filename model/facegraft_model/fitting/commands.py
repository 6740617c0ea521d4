"""Fit items of a dataset or scans from files, and write the fits to disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facegraft.vocabulary import SCAN, TEST
from facegraft_model.config import FitConfig, windows
from facegraft_model.data.batches import BatchSource
from facegraft_model.devices import choose_device, free_bytes
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import Landmarks, Report, fit_samples
from facegraft_model.fitting.fits import Fits, load_fits, save_fits
from facegraft_model.fitting.plausible import check_scale, judged
from facegraft_model.fitting.scan import Align, fit_scan
from facegraft_model.fitting.scanfile import read_scan
from facegraft_model.method import Field
from facegraft_model.models import load_field
from facegraft_model.outofmemory import FIT_BYTES, named_out_of_memory

log = logging.getLogger("facegraft")

SCAN_ROBUST_MM = 2.0


@dataclass(frozen=True)
class ScanChoice:
    """Options for reading scans: millimetres per unit of the file, the alignment, and a file of landmarks."""

    unit_mm: float = 1.0
    align: Align = "rigid"
    landmark_file: Path | None = None


def fit_dataset(
    run: Path,
    samples: Path,
    output: Path,
    *,
    split: str | None = TEST,
    origin: str | None = SCAN,
    keys: Sequence[str] | None = None,
    share_identity: bool = False,
    landmarks: Landmarks = "none",
    settings: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    report: Report | None = None,
) -> Fits:
    """Fit the chosen items of a dataset and write FITS. keys: exactly these, whatever their split and origin.

    settings: `fit.name=value`, and changes: values by name, on top of the run's own fit settings.
    """
    field = load_field(run, choose_device(device))
    fit = _fit_config(field, settings, changes)
    if keys is None:
        keys = chosen_keys(field, samples, split, origin)
    with _memory(field, fit):
        fitted, rows = fit_samples(
            field,
            str(samples),
            keys,
            fit,
            seed=seed,
            landmarks=landmarks,
            share_identity=share_identity,
            report=report,
        )
    record = {
        **asdict(fit),
        "landmarks": landmarks,
        "alignment": "none",
        "share_identity": share_identity,
        "seed": seed,
    }
    save_fits(output, field, run, rows, fitted.codes, fitted.errors_mm, record, samples=samples)
    return load_fits(output, choose_device(device))


def fit_scans(
    run: Path,
    scans: Sequence[Path],
    output: Path,
    choice: ScanChoice,
    *,
    landmarks: Landmarks = "none",
    settings: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    report: Report | None = None,
) -> Fits:
    """Fit meshes or point clouds, one after the other, and write FITS; a head's key is its file's name.

    An item of FITS has what is known of its scan under "scan" (`plausible.Judgement`); warnings are logged, too.
    Raises ModelError, naming the file, for a scan that is no face of this size.
    """
    field = load_field(run, choose_device(device))
    fit = _fit_config(field, settings, {"robust_mm": SCAN_ROBUST_MM, **(changes or {})})
    names = [path.stem for path in scans]
    if len(set(names)) < len(names):
        raise ModelError(
            f"two scans are called {next(name for name in names if names.count(name) > 1)!r}; give them different file names"
        )
    codes: dict[str, list[torch.Tensor]] = {name: [] for name in field.code_dims}
    errors, alignments, judgements = [], [], []
    for path in scans:
        scan = read_scan(path, choice.unit_mm, choice.landmark_file, seed)
        with _memory(field, fit), _named(path):
            fitted, alignment = fit_scan(
                field, scan, fit, align=choice.align, landmarks=landmarks, seed=seed, report=report
            )
            judgement = judged(field, scan.points, scan.normals, fitted, alignment)
            if choice.align == "similarity" and len(scan.landmarks) < 3:
                check_scale(judgement)
        for warning in judgement.warnings:
            log.warning("%s: %s", path, warning)
        judgements.append(judgement.describe())
        for name, code in fitted.codes.items():
            codes[name].append(code)
        errors.append(fitted.errors_mm)
        centred = torch.eye(4, dtype=alignment.dtype)
        centred[:3, 3] = -torch.tensor(scan.centre, dtype=alignment.dtype)
        alignments.append(alignment @ centred)
    rows = [
        {"key": name, "subject": name, "expression": "", "split": "", "recipient": name, "origin": SCAN, "scan": judgement}
        for name, judgement in zip(names, judgements, strict=True)
    ]
    record = {
        **asdict(fit),
        "landmarks": landmarks,
        "alignment": choice.align,
        "unit_mm": choice.unit_mm,
        "share_identity": False,
        "seed": seed,
    }
    save_fits(
        output,
        field,
        run,
        rows,
        {name: torch.cat(values) for name, values in codes.items()},
        torch.cat(errors),
        record,
        alignment=torch.stack(alignments),
    )
    return load_fits(output, choose_device(device))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in errors of which file they are."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from error


def chosen_keys(field: Field, samples: Path, split: str | None, origin: str | None) -> list[str]:
    """Keys of the items of a split and origin. Raises DataError when there are none."""
    expect = field.provenance["data"]["coordinates"]
    with BatchSource(
        samples,
        items=1,
        surface=0,
        near=0,
        free=0,
        stage=0,
        split=split,
        origins=None if origin is None else (origin,),
        expect=expect,
        backend="stream",
    ) as source:
        return list(source.keys)


def _memory(field: Field, fit: FitConfig) -> AbstractContextManager[None]:
    points = sum(windows(fit).values())
    what = f"{fit.items} heads of {points} points are too many at once"
    device = field.template_points.device
    return named_out_of_memory(device, what, _fewer(fit, points, free_bytes(device)))


def _fewer(fit: FitConfig, points: int, room: int) -> str:
    """Which settings make a fit smaller; fit.items as many as fit into `room` bytes, by what a head of a cascade needs."""
    items = min(room // (FIT_BYTES * max(points, 1)), fit.items // 2)
    if items < 1:
        return "lower fit.surface (--set fit.surface=2000)" if fit.items == 1 else "fit one head at a time (--set fit.items=1), or lower fit.surface"
    return f"fit fewer heads at a time (--set fit.items={items}), or lower fit.surface"


def _fit_config(field: Field, settings: Sequence[str], changes: Mapping[str, Any] | None) -> FitConfig:
    wrong = [setting for setting in settings if not setting.startswith("fit.")]
    if wrong:
        raise ModelError(f"--set {wrong[0]}: a fit takes only fit.name=value; other settings are fixed by the run")
    config = field.config.with_settings(settings)
    return replace(config, fit=replace(config.fit, **(changes or {}))).checked().fit
