"""`coolsd-rt build FILE`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from coolsd_rt.cli.output import json_option, note, print_json, show_fields, show_table
from coolsd_rt.cli.parity import listener_of
from coolsd_rt.cli.paths import SPEC, WRITES_IN
from coolsd_rt.cli.terminal.progress import Work, duration, progress
from coolsd_rt.spec import load_spec
from coolsd_rt.store.atomic import free_bytes, human
from coolsd_rt.workflows import promote as promoting
from coolsd_rt.workflows.build.estimate import MEASURED_ON
from coolsd_rt.workflows.build.run import BuildCallbacks, BuildPlan, Built, PlannedStage, plan, with_engine
from coolsd_rt.workflows.parity.run import IMAGES, ParityCallbacks
from coolsd_rt.workflows.promote import ENGINES, Promoted, promote

_WORTH_SAYING = 10.0  # seconds of a build; less is over before it is read


class _BuildScreen:
    """Progress of a build: its stages and their estimated time."""

    def __init__(self, work: Work, planned: BuildPlan) -> None:
        self._work, self._stage, self._names = work, "", [stage.name for stage in planned.stages]
        left = sum(not stage.cached for stage in planned.stages)
        if left and planned.estimate.seconds >= _WORTH_SAYING:
            rough = duration(planned.estimate.seconds)
            note(f"{left} of {len(planned.stages)} stages to build, roughly {rough} at rates of {MEASURED_ON}")
        work.start("building", len(planned.stages), "stages", announce=False, timed=False)

    def listener(self) -> BuildCallbacks:
        return BuildCallbacks(
            self._started,
            self._finished,
            lambda name: note(f"waiting: another build runs the stage {name}"),
            self._compiling,
        )

    def _started(self, stage: PlannedStage) -> None:
        self._stage = stage.name
        self._work.update(what=f"building: {stage.name}")
        if self._work.plain and not stage.cached:
            about = f", roughly {duration(stage.amount.seconds)}" if stage.amount.seconds >= _WORTH_SAYING else ""
            self._work.tell(f"{stage.name}: stage {self._names.index(stage.name) + 1} of {len(self._names)}{about}")

    def _compiling(self, phase: str, done: int, steps: int) -> None:
        self._work.update(what=f"building: {self._stage}, {phase} {done} of {steps}"[:100])

    def _finished(self, stage: PlannedStage, seconds: float, fresh: bool) -> None:
        self._work.tell(f"{stage.name}: {f'built in {seconds:.1f} s' if fresh else 'unchanged, cached'}")
        self._work.advance()


def _show_plan(planned: BuildPlan) -> None:
    rows = [
        (s.name, s.stage.key, "cached", "", "", "")
        if s.cached
        else (
            s.name,
            s.stage.key,
            "to build",
            human(s.amount.disk),
            human(s.amount.memory),
            f"{s.amount.seconds:.0f} s" if s.amount.seconds else "?",
        )
        for s in planned.stages
    ]
    show_table(("stage", "key", "state", "disk", "memory", "time"), rows)
    whole, small = planned.estimate, "" if planned.fits else ": too little, the build will be refused"
    show_fields(
        {
            "engine": planned.folder,
            "precision": planned.loaded.spec.engine.precision,
            "disk": f"{human(whole.disk)} to write, {human(free_bytes(planned.out))} free{small}",
            "memory": f"about {human(whole.memory)} at the peak",
            "time": f"roughly {whole.seconds:.0f} s, at rates of {MEASURED_ON}",
        }
    )


def _show(built: Built) -> None:
    document = built.as_dict()
    show_fields(
        {
            "engine": built.engine.folder,
            "precision": document["precision"],
            **({"int8": document["int8"]} if "int8" in document else {}),
            "built": ", ".join(built.fresh) or "nothing: every stage was cached",
            "size": human(document["bytes"]),
            "seconds": f"{built.seconds:.1f}",
        }
    )


@click.command()
@click.argument("file", type=SPEC)
@click.option("--out", type=WRITES_IN, default=ENGINES, show_default=True, help="Folder that engines are written to.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="Precision of weights and KV cache; replaces the spec's engine.precision. fp16 needs a GPU; bf16 runs on "
    "torch and TensorRT, int8 on ONNX Runtime on a CPU and TensorRT.",
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "torch", "tensorrt", "tensorrt-rtx"]),
    help="Runtime of the engine; replaces the spec's engine.backend.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Device of the engine; replaces the spec's engine.device."
)
@click.option("--dry-run", is_flag=True, help="List the stages to build and the cached stages; write nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    out: Path,
    precision: str | None,
    backend: str | None,
    device: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compile a spec's models into an engine.

    Stages whose weights, settings, tools and code did not change are taken from the cache. The engine is written to
    OUT/NAME/FINGERPRINT, and OUT/NAME/current points to the latest build. An engine for a GPU is verified on
    the GPU first: until parity passes, OUT/NAME/current does not point to it.

    \b
    Example:
      coolsd-rt build pipelines/emoji.yaml
      coolsd-rt build pipelines/emoji.yaml --precision int8 --dry-run
    """
    planned = plan(with_engine(load_spec(file), backend=backend, device=device, precision=precision), out)
    if dry_run:
        if as_json:
            print_json(planned.as_dict())
        else:
            _show_plan(planned)
        return
    made = promote(planned, _listener(as_json))
    if as_json:
        print_json(made.built.as_dict() | ({"proven": made.passed} if planned.gated else {}))
    else:
        _show(made.built)
    if made.passed is False:
        ctx.exit(1)


def engine_of(path: Path, quiet: bool) -> Path:
    """A spec's engine, engines/NAME/FINGERPRINT, built now if it is not there. Raises as `promote.engine_of`."""
    return promoting.engine_of(path, ENGINES, _listener(quiet))


def _say_verified(made: Promoted) -> None:
    if made.passed is None:
        current = made.built.plan.out / made.built.plan.loaded.spec.name
        note(
            f"not verified: no GPU on this machine. {current} does not point to this build before it is verified. "
            f"Verify on a machine with a GPU: coolsd-rt parity {made.folder}"
        )
    if not made.compared:
        return
    for line in made.failures:
        note(f"error: {line}")
    note(f"parity: {'passed' if made.passed else 'failed; only the folder of the fingerprint names this engine'}")


def _listener(quiet: bool) -> promoting.PromoteCallbacks:
    """Shows a build and a parity run, each with a bar of its own."""

    @contextmanager
    def build(planned: BuildPlan) -> Iterator[BuildCallbacks]:
        with progress(quiet=quiet) as work:
            yield _BuildScreen(work, planned).listener()

    @contextmanager
    def parity() -> Iterator[ParityCallbacks]:
        with progress(quiet=quiet) as work:
            yield listener_of(work, IMAGES)

    return promoting.PromoteCallbacks(build, parity, _say_verified)
