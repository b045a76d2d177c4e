"""`coolsd-rt build FILE`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress, TaskID

from coolsd_rt.cli.output import json_option, note, print_json, progress, show_fields, show_table
from coolsd_rt.spec import load_spec
from coolsd_rt.store.atomic import human
from coolsd_rt.workflows.build import Built, Listener, Plan, PlannedStage, build, plan, with_precision


class _Screen:
    """A bar over the stages on a terminal, a line a stage elsewhere. All of it on stderr."""

    def __init__(self, bar: Progress, stages: int) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("building", total=stages)

    def listener(self) -> Listener:
        return Listener(self._started, self._finished, lambda name: note(f"waiting: another build is at {name}"))

    def _started(self, stage: PlannedStage) -> None:
        self._bar.update(self._task, description=f"building: {stage.name}")

    def _finished(self, stage: PlannedStage, seconds: float, fresh: bool) -> None:
        self._bar.advance(self._task)
        note(f"{stage.name}: {f'built in {seconds:.1f} s' if fresh else 'unchanged, cached'}")


def _show_plan(planned: Plan) -> None:
    rows = [(s.name, s.stage.key, "cached" if s.cached else "to build") for s in planned.stages]
    show_table(("stage", "key", "state"), rows)
    show_fields({"engine": planned.folder, "precision": planned.loaded.spec.engine.precision})


def _show(built: Built) -> None:
    document = built.as_dict()
    show_fields(
        {
            "engine": built.engine.folder,
            "precision": document["precision"],
            "built": ", ".join(built.fresh) or "nothing: every stage was cached",
            "size": human(document["bytes"]),
            "seconds": f"{built.seconds:.1f}",
        }
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("engines"), show_default=True, help="Folder for engines."
)
@click.option("--precision", type=click.Choice(["fp32", "int8"]), help="Instead of the spec's engine.precision.")
@click.option("--dry-run", is_flag=True, help="Show what would be built and what is cached; write nothing.")
@json_option
def command(file: Path, out: Path, precision: str | None, dry_run: bool, as_json: bool) -> None:
    """Compile a spec's models into an engine.

    Stages whose weights, settings and tools did not change are not run again. The engine lands in OUT/NAME/FINGERPRINT,
    and OUT/NAME/current names the latest one.

    \b
    Example:
      coolsd-rt build pipelines/emoji.yaml
      coolsd-rt build pipelines/emoji.yaml --precision int8 --dry-run
    """
    planned = plan(with_precision(load_spec(file), precision), out)
    if dry_run:
        if as_json:
            print_json(planned.as_dict())
        else:
            _show_plan(planned)
        return
    with progress(quiet=as_json) as bar:
        built = build(planned, _Screen(bar, len(planned.stages)).listener())
    if as_json:
        print_json(built.as_dict())
    else:
        _show(built)
