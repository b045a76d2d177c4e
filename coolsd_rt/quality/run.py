"""`coolsd-rt quality`: draws the images of a caption file, and measures them against references with the same ids.

    1. Check captions, reference files, the engine, its run-time values and every measure's files. Nothing is drawn.
    2. Draw the images that OUT lacks (`draw`).
    3. Measure. Features and scores are stored in batches, so that an interrupted run continues here too.
    4. Write OUT/results.json, and OUT/scores.json with the scores of every image.

    OUT/quality.json, OUT/images/139.png        see `draw`
    OUT/kept/<what it depends on>/00000.npz     features and scores by id, with checksums

Knows the order of the steps. Does not know how a measure works or what a terminal shows. Reads local files only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.metrics.fid import CONVENTION, FEWEST, FID, InceptionFeatures, few, fid
from coolsd_rt.metrics.gallery import Gallery, RgbImage, values_of
from coolsd_rt.metrics.metric import CLIP, Figure, Kind
from coolsd_rt.metrics.reward import HPSV2, IMAGE_REWARD, INSTALL, HpsV2, ImageReward, PairScore, mean
from coolsd_rt.models.inception import HOW
from coolsd_rt.quality.captions import read_prompts, read_references
from coolsd_rt.quality.draw import Cost, QualityCallbacks, QualityPlan, cost, draw
from coolsd_rt.spec.fields import Flag, check_fields
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.store.hashing import sha256_json
from coolsd_rt.store.results import save
from coolsd_rt.workflows.generate.run import GenerateConfig

RESULTS, SCORES, KEPT = "results.json", "scores.json", "kept"
_OF_REFERENCES = Kind("clip_references", "CLIP score of the references")
_PAIRS = 256  # number of references whose CLIP score tests whether the captions are theirs
# The repository's main branch has no safetensors file; this pull request has one.
_GET_CLIP = "hf download openai/clip-vit-base-patch32 --revision refs/pr/15 --local-dir"
_ABSENT = {
    FID.name: f"{HOW}; then give --inception inception.safetensors and --reference DIR",
    CLIP.name: f"{_GET_CLIP} clip; then give --clip clip",
    IMAGE_REWARD.name: f"{INSTALL[IMAGE_REWARD.name]}; then give --image-reward DIR",
    HPSV2.name: f"{INSTALL[HPSV2.name]}; then give --hpsv2 FILE",
}


@dataclass(frozen=True)
class QualityMeasures:
    """Local files and folders of the measures.

    A measure whose file is None is left out, and its row says how to enable it.

    crop: cut references to their central square. cache: folder for the references' features; None is in OUT.
    """

    reference: Path | None = None
    inception: Path | None = None
    clip: Path | None = None
    image_reward: Path | None = None
    hpsv2: Path | None = None
    crop: Flag = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class QualityRow:
    """One measure of the result. If `figure` is None, it was not measured, and `how` says what to type to measure it.

    identity: what the figure depends on besides images and captions, as JSON data.
    """

    kind: Kind
    figure: Figure | None
    images: int
    how: str = ""
    identity: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "name": self.kind.name,
            "label": self.kind.label,
            "lower_is_better": self.kind.lower_is_better,
            "images": self.images,
            "figure": None if self.figure is None else self.figure.model_dump(),
            "identity": self.identity,
            "how": self.how,
        }


@dataclass(frozen=True)
class QualityReport:
    """The figures of a run. `seconds` is the time per image, measured beside other work: not a benchmark."""

    engine: Mapping[str, Any]
    settings: Mapping[str, Any]
    images: int
    cost: Cost
    rows: tuple[QualityRow, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `quality --json` and results.json."""
        return {
            "version": 1,
            "engine": dict(self.engine),
            "settings": dict(self.settings),
            "images": self.images,
            "accept_length": self.cost.accept_length.model_dump(),
            "seconds_per_image": self.cost.seconds,
            "loop": self.cost.loop,
            "measures": [row.as_dict() for row in self.rows],
            "fid_convention": CONVENTION,
            "warnings": list(self.warnings),
        }


def quality(
    engine: str | Path,
    prompts: str | Path,
    out: str | Path,
    request: GenerateConfig,
    wanted: QualityMeasures | None = None,
    limit: int | None = None,
    listener: QualityCallbacks | None = None,
) -> QualityReport:
    """Draw and measure, or continue with what `out` holds.

    request: run-time values as `generate` takes them; its prompts and folder are ignored. limit: use only the first
    `limit` ids; prompts and references are compared before that.

    Raises:
        UserError: captions, references or files do not fit, or the folder has other settings; before anything is drawn.
        CoolsdError: the engine is broken, the disk is full, or a file of `out` is invalid.
    """
    listener, wanted = listener or QualityCallbacks(), wanted or QualityMeasures()
    prompts, out = Path(prompts), Path(out)
    captions = read_prompts(prompts)
    references = None if wanted.reference is None else read_references(wanted.reference, captions)
    if limit is not None:
        limit = limits.IMAGES.check("limit", limit)
        captions = dict(list(captions.items())[:limit])
    for folder in (out, *([wanted.cache] if wanted.cache else [])):
        check_folder(folder)
    tools = _Tools.of(wanted, len(captions))
    plan = QualityPlan.of(engine, captions, replace(request, prompts=(), out=out))
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        listener.warning(line)

    heard = replace(listener, warning=warn)
    drawn = draw(plan, out, heard)
    run = _QualityRun(out, captions, drawn, wanted, heard, cost(plan, drawn))
    if references is not None:
        run.references = Gallery({name: references[name] for name in captions}, wanted.crop)
    rows = run.rows(tools)
    head = plan.head()
    settings = {key: value for key, value in head.items() if key not in ("version", "engine", "prompts")}
    settings["prompts"] = sha256_json(head["prompts"])
    report = QualityReport(head["engine"], settings, len(captions), run.cost, tuple(rows), tuple(warnings))
    save(out / SCORES, (json.dumps(run.scores, indent=1) + "\n").encode())
    save(out / RESULTS, (json.dumps(report.as_dict(), indent=2, default=str) + "\n").encode())
    return report


@dataclass(frozen=True)
class _Tools:
    """The loaded networks of the measures."""

    inception: InceptionFeatures | None
    scorers: tuple[PairScore, ...]

    @staticmethod
    def of(wanted: QualityMeasures, images: int) -> _Tools:
        """Load the networks.

        Raises UserError: a file is missing or does not fit, too few images, or a package is missing.
        """
        if wanted.inception is not None and wanted.reference is None:
            raise UserError("FID", expected="images to compare with", found="none", fix="give --reference DIR")
        if wanted.inception is not None and images < FEWEST:
            raise UserError("FID", expected=f"at least {FEWEST} images", found=str(images), fix="drop --inception")
        scorers: list[PairScore] = []
        if wanted.clip is not None:
            if not wanted.clip.is_dir():
                fix = f"run: {_GET_CLIP} {wanted.clip}"
                raise UserError(str(wanted.clip), expected="a folder of a CLIP model", found="no such folder", fix=fix)
            from coolsd_rt.metrics.clip import ClipScore  # needs transformers

            scorers.append(ClipScore(wanted.clip))
        if wanted.image_reward is not None:
            scorers.append(ImageReward(wanted.image_reward))
        if wanted.hpsv2 is not None:
            scorers.append(HpsV2(wanted.hpsv2))
        inception = None if wanted.inception is None else InceptionFeatures(wanted.inception)
        return _Tools(inception, tuple(scorers))


@dataclass
class _QualityRun:
    """Measures the drawn images. `scores` maps an id to its scores by measure."""

    out: Path
    captions: Mapping[str, str]
    drawn: Gallery
    wanted: QualityMeasures
    listener: QualityCallbacks
    cost: Cost
    references: Gallery | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.wanted.cache or self.out / KEPT

    def rows(self, tools: _Tools) -> list[QualityRow]:
        """Return one row per measure, including those that were not measured."""
        self.scores = {name: {} for name in self.drawn.ids}
        rows = []
        if tools.inception is not None and self.references is not None:
            rows.append(self.fid(tools.inception, self.references))
        for scorer in tools.scorers:
            found = self.score(scorer, self.drawn, self.captions, self.out / KEPT, f"measuring {scorer.kind.label}")
            for name, score in zip(self.drawn.ids, found.tolist(), strict=True):
                self.scores[name][scorer.kind.name] = score
            rows.append(QualityRow(scorer.kind, mean(found), len(found), identity=scorer.identity()))
            if scorer.kind == CLIP and self.references is not None:
                rows += self.pairing(scorer, self.references)
        made = {row.kind.name for row in rows}
        rows += [
            QualityRow(kind, None, 0, _ABSENT[kind.name])
            for kind in (FID, CLIP, IMAGE_REWARD, HPSV2)
            if kind.name not in made
        ]
        return rows

    def fid(self, network: InceptionFeatures, references: Gallery) -> QualityRow:
        def features(images: list[RgbImage], ids: tuple[str, ...]) -> NDArray[np.float32]:
            return network.features(images)

        sides = [(references, self.cache, "features of references"), (self.drawn, self.out / KEPT, "features")]
        found = []
        for gallery, folder, stage in sides:
            self.listener.start(stage, len(gallery))
            found.append(values_of(gallery, folder, network.identity(), features, self.listener.step))
        if line := few(len(self.drawn)):
            self.listener.warning(line)
        identity = {**network.identity(), "references": references.digest, "crop": references.crop}
        return QualityRow(FID, fid(*found), len(self.drawn), identity=identity)

    def score(
        self, scorer: PairScore, gallery: Gallery, captions: Mapping[str, str], folder: Path, stage: str
    ) -> NDArray[np.float64]:
        """Return the scores [N] of images with the captions of their ids."""

        def scores(images: list[RgbImage], ids: tuple[str, ...]) -> NDArray[np.float64]:
            return scorer.scores(images, [captions[name] for name in ids])

        texts = sha256_json([captions[name] for name in gallery.ids])
        identity = {"measure": scorer.kind.name, **scorer.identity(), "captions": texts}
        self.listener.start(stage, len(gallery))
        return values_of(gallery, folder, identity, scores, self.listener.step)

    def pairing(self, scorer: PairScore, references: Gallery) -> list[QualityRow]:
        """Return the CLIP score of the references. Warns if the references do not fit the captions."""
        some = references.first(_PAIRS)
        if len(some) < 2:
            return []
        names = list(some.ids)
        others = dict(zip(names, (self.captions[name] for name in [*names[1:], names[0]]), strict=True))
        own = self.score(scorer, some, self.captions, self.cache, "CLIP score of references")
        strange = self.score(scorer, some, others, self.cache, "CLIP score of references and others' captions")
        gain = mean(own - strange)
        if gain.low is None or gain.low <= 0:
            said = f"{own.mean():.4g} with their own captions, {strange.mean():.4g} with their neighbours'"
            self.listener.warning(
                f"references do not fit their captions (CLIP score {said}): are the ids the same set?"
            )
        return [QualityRow(_OF_REFERENCES, mean(own), len(own), identity=scorer.identity())]


def settings_line(report: QualityReport) -> str:
    """Format the settings that distinguish runs, in one line."""
    s = report.settings
    if s["plain"]:
        return "plain decoding"
    return f"{s['acceptance']['rule']}, {', '.join(f'{k} {v}' for k, v in s['schedule'].items())}"
