"""Everything that is measured of a set of fits: reconstruction by part, and how well the parts are disentangled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facegraft_model.decoding.extract import EmptyFieldError
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.leakage import leakage_study
from facegraft_model.evaluation.neutral import neutral_heads
from facegraft_model.evaluation.predictability import variation_predictability
from facegraft_model.evaluation.records import Failure, Scores, ScoreSettings
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.scorefiles import to_json
from facegraft_model.evaluation.swaperror import swap_error
from facegraft_model.evaluation.truth import Truth
from facegraft_model.fitting.fits import Fits

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationSettings:
    """resolution: of the extracted meshes. pairs: of heads for leakage and swap error; 0: no disentanglement. predictability: heads
    that variation predictability starts from; 0: none. score: how points are drawn and compared."""

    resolution: int = 256
    pairs: int = 20
    predictability: int = 0
    score: ScoreSettings = field(default_factory=ScoreSettings)


def evaluate_fits(
    fits: Fits,
    samples: Path,
    settings: EvaluationSettings,
    *,
    surfaces: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of fitted heads against the surfaces that the samples were made of.

    Raises ModelError for fits of scans that are not among the samples, and what `score.evaluate` raises.
    """
    truth = Truth(samples, surfaces)
    known = set(truth.samples)
    strange = [item["key"] for item in fits.items if item["key"] not in known]
    if strange:
        raise ModelError(
            f"{fits.path}: {strange[0]} is no item of {samples}, so there is nothing to compare it with; score fits of that dataset"
        )
    counter = _Counter("scores", len(fits), progress)
    seed = fits.field.provenance["seed"]
    method = fits.field.config.preset
    alignment = fits.alignment.numpy()
    scores = evaluate(
        decode_items(fits.field, fits.items, fits.codes_of, truth, resolution=settings.resolution, to_model=alignment),
        truth,
        settings.score,
        method=method,
        landmarks=str(fits.settings.get("landmarks", "none")),
        resolution=settings.resolution,
        training_seed=seed,
        record={
            "fit": fits.settings,
            "model": fits.field.provenance,
            "share_identity": fits.settings.get("share_identity", False),
        },
        disentanglement=_disentanglement_or_reason(fits, truth, settings, progress),
        on_head=counter,
    )
    return scores


def _disentanglement_or_reason(
    fits: Fits, truth: Truth, settings: EvaluationSettings, progress: Progress | None
) -> dict[str, Any] | None:
    """As `_disentanglement`; a model without a surface has none, and the result says so under "failed"."""
    try:
        return _disentanglement(fits, truth, settings, progress)
    except EmptyFieldError as error:
        return {"failed": str(error)}


def _disentanglement(
    fits: Fits, truth: Truth, settings: EvaluationSettings, progress: Progress | None
) -> dict[str, Any] | None:
    """Leakage, swap error and variation predictability; None for a method without part codes."""
    if settings.pairs == 0 or fits.field.config.model.method != "parts":
        return None
    neutral = str(fits.field.provenance["data"]["neutral_expression"])
    heads = neutral_heads(fits.items, fits.codes, neutral)
    if len(heads) < 2:
        return None
    seed = settings.score.seed
    decode = DecodeSettings(resolution=settings.resolution)
    leakage = leakage_study(
        fits.field, heads, pairs=settings.pairs, seed=seed, settings=decode, progress=_stage("leakage", progress)
    )
    result: dict[str, Any] = {"leakage": leakage.to_json()}
    split = str(fits.items[0]["split"])
    swaps = {}
    for name, parts in (("swapped", ("nose", "eyes", "mouth")), ("host unchanged", ())):
        scored = swap_error(
            fits.field,
            fits.items,
            fits.codes,
            truth,
            parts=parts,
            split=split,
            pairs=settings.pairs,
            seed=seed,
            to_model=fits.alignment.numpy(),
            resolution=settings.resolution,
            settings=settings.score,
            method=f"{fits.field.config.preset}, {name}",
            training_seed=fits.field.provenance["seed"],
            on_head=_Counter(f"swap error, {name}", settings.pairs, progress),
        )
        swaps[name] = to_json(scored)
    result["swap_error"] = swaps
    if settings.predictability > 0:
        study = variation_predictability(
            fits.field,
            bases=settings.predictability,
            seed=seed,
            settings=DecodeSettings(resolution=min(settings.resolution, 128)),
        )
        result["variation_predictability"] = study.to_json()
    return result


class _Counter:
    def __init__(self, what: str, total: int, progress: Progress | None) -> None:
        self.what, self.total, self.done, self.progress = what, total, 0, progress

    def __call__(self, _: Any) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.what, self.done, self.total)


def _stage(what: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def fit_pictures(
    fits: Fits, samples: Path, *, count: int = 4, resolution: int = 256, surfaces: Path | None = None
) -> list[dict[str, Any]]:
    """The first heads for a picture: key, truth (vertices in mm, faces), fit (vertices in mm, faces, parts, distance to the truth in mm)."""
    truth = Truth(samples, surfaces)
    shown = []
    for i in range(min(count, len(fits))):
        item = fits.items[i]
        codes, alignment = fits.codes_of(i), fits.alignment.numpy()[i : i + 1]
        entry = next(
            decode_items(fits.field, [item], [codes].__getitem__, truth, resolution=resolution, to_model=alignment)
        )
        if isinstance(entry, Failure):
            continue
        head = truth.head(item["key"])
        distance = head.surface.nearest(entry.vertices).distance
        shown.append(
            {
                "key": item["key"],
                "truth": (head.vertices, head.faces),
                "fit": (entry.vertices, entry.faces, entry.parts, distance),
            }
        )
    return shown


def disentanglement_table(results: Sequence[Scores]) -> str:
    """Leakage by part and swap error, a row a method; empty where nothing was measured."""
    rows, failures = [], []
    for result in results:
        measured = result.disentanglement
        if not measured:
            continue
        if "failed" in measured:
            failures.append(f"{result.method}: no leakage and no swap error: {measured['failed']}")
            continue
        leakage = measured["leakage"]["parts"]
        swaps = {
            name: scored["summary"]["none"]["full"]["p2s_mm"]["mean"] for name, scored in measured["swap_error"].items()
        }
        parts = {name: scored["summary"]["none"] for name, scored in measured["swap_error"].items()}
        cells = [_mean(leakage[part]["ratio"]) for part in ("nose", "eyes", "mouth")]
        cells += [
            f"{swaps['swapped']:.3f}",
            *(f"{parts['swapped'][part]['p2s_mm']['mean']:.3f}" for part in ("nose", "eyes", "mouth")),
        ]
        cells += [f"{parts['host unchanged'][part]['p2s_mm']['mean']:.3f}" for part in ("nose", "eyes", "mouth")]
        rows.append((result.method, cells))
    if not rows:
        return "".join(f"\n{line}\n" for line in failures)
    width = max(len("method"), *(len(name) for name, _ in rows))
    names = ["nose", "eyes", "mouth", "full", "nose", "eyes", "mouth", "nose", "eyes", "mouth"]
    lines = [
        "",
        f"{'':{width}}  {'leakage':^20}  {'swap error, p2s mm':^27}  {'host unchanged':^20}".rstrip(),
        f"{'method':{width}}  " + " ".join(f"{name:>6}" for name in names),
        *(f"{name:{width}}  " + " ".join(f"{cell:>6}" for cell in cells) for name, cells in rows),
        "",
        "leakage: rms displacement outside the part / inside it when only that part's code changes. swap error: decoded swap of codes",
        "against the geometric graft of the same heads; host unchanged: the same for the host's own codes, what doing nothing scores.",
        *failures,
    ]
    return "\n".join(lines) + "\n"


def _mean(interval: dict[str, float] | None) -> str:
    return "-" if interval is None else f"{interval['mean']:.3f}"
