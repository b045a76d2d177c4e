"""`coolsd-rt inspect PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coolsd_rt.cli.output import json_option, print_json, say, show_fields, show_table
from coolsd_rt.cli.paths import ENGINE, SPEC
from coolsd_rt.contract import CONTRACT_VERSION
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, Reason, open_engine, sha256_file, staleness, tool_versions
from coolsd_rt.store.atomic import human
from coolsd_rt.store.manifest import rebuild_hint, spec_path
from coolsd_rt.workflows.build.code import code_digest
from coolsd_rt.workflows.build.record import describe_forms


def _reasons(engine: EngineFolder, spec_file: Path | None) -> list[Reason]:
    tools, code = tool_versions(engine.manifest.tools), code_digest
    if spec_file is None:
        return staleness(engine.manifest, tools=tools, code=code, contract_version=CONTRACT_VERSION)
    loaded = load_spec(spec_file, check_files=False)
    return staleness(
        engine.manifest,
        files={key: sha256_file(path) for key, path in loaded.files.items()},
        build_view=loaded.spec.build_view(),
        run_view=loaded.spec.run_view(),
        tools=tools,
        code=code,
        contract_version=CONTRACT_VERSION,
    )


def _runnable(engine: EngineFolder) -> bool:
    """Whether this version can run the engine, by its contract."""
    return bool(engine.manifest.contract.get("version") == CONTRACT_VERSION)


def _parity(receipt: dict[str, Any] | None) -> str:
    if receipt is None:
        return "none; run: coolsd-rt parity"
    return ", ".join(f"{k} {v}" for k, v in receipt.items() if isinstance(v, str | int | float | bool))


def _show(engine: EngineFolder, spec_file: Path | None, reasons: list[Reason]) -> None:
    m = engine.manifest
    options = m.build_view.get("engine")
    forms = describe_forms({name: stage.facts for name, stage in m.stages.items()})
    show_fields(
        {
            "engine": m.name,
            "fingerprint": m.fingerprint,
            "folder": engine.folder,
            "created": m.created,
            "spec": spec_file or "not found (give --spec FILE to compare)",
            "precision": options.get("precision", "?") if isinstance(options, dict) else "?",
            **({"int8": forms} if forms else {}),
            "tools": ", ".join(f"{k} {v}" for k, v in m.tools.items()),
            "parity": _parity(m.parity),
        }
    )
    rows = [(n, f.role, human(f.size), f.sha256[:12]) for n, f in m.files.items()]
    show_table(("file", "stage", "size", "sha256"), rows)
    work = [r for r in reasons if r.kind != "run-time"]
    unknown = "unknown: the spec was not found, so weights and settings were not compared"
    say("stale: " + ("yes, a build would differ" if work else "no" if spec_file else unknown))
    for reason in reasons:
        say(f"  {reason}")
    if not _runnable(engine):
        say(f"this version cannot run the engine; {rebuild_hint(engine.folder, m)}")


@click.command()
@click.argument("path", type=ENGINE)
@click.option(
    "--spec", "spec_file", type=SPEC, help="Spec to compare with; default: the spec that the engine was built from."
)
@click.option("--verify", is_flag=True, help="Verify the hash of every file.")
@json_option
def command(path: Path, spec_file: Path | None, verify: bool, as_json: bool) -> None:
    """Show an engine's manifest, and why the engine is stale. No graph or array is loaded.

    PATH is engines/NAME (its current build) or the folder of one fingerprint. With --verify, a missing or
    changed file is an error (exit code 1). An engine of another contract version, which this version cannot run, is
    reported like any other (exit code 0; "runnable" with --json).

    \b
    Example:
      coolsd-rt inspect engines/emoji --verify
    """
    engine = open_engine(path)
    spec_file = spec_file or spec_path(engine.folder, engine.manifest)
    reasons = _reasons(engine, spec_file)
    if verify:
        engine.verified()
    if as_json:
        document = engine.manifest.model_dump(mode="json") | {
            "folder": engine.folder,
            "stale": any(r.kind != "run-time" for r in reasons),
            "compared_with": spec_file,
            "reasons": [r.as_dict() for r in reasons],
            "runnable": _runnable(engine),
            "verified": verify,
        }
        print_json(document)
        return
    _show(engine, spec_file, reasons)
    if verify:
        say("files: every hash matches")
