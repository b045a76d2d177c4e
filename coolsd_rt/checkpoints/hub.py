"""Locates a checkpoint: a path, or a repository of the Hugging Face hub at a pinned revision, downloaded once.

Knows repository names, the layout of the hub's cache, and the hub's connection errors. Does not know what is in a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.files import why_unusable
from coolsd_rt.pretrained.hub import no_answer, quiet_hub
from coolsd_rt.spec.origins import COMMIT, how_to_pin, on_hub

_SAFE, _PICKLES = ("*.json", "*.safetensors"), ("*.json", "*.bin", "*.pt", "*.pth", "*.ckpt")


def locate(source: str, mirror: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the file or folder of a SOURCE: an existing path, `org/name@commit`, or `org/name@commit:file`.

    mirror: folder to use instead of the hub, with `org/name/file`, `name/file` or `file` (commits are not checked), or
    in the layout of the hub's cache. say: called with a line of text before the hub is contacted.

    Raises:
        UserError: the source is neither form, its revision is a branch or tag, or it is not in the mirror.
        MissingExtra: huggingface_hub is not installed.
        CoolsdError: the hub cannot be reached, or has no such repository, revision or file.
    """
    if why_unusable(Path(source)) != "nothing":
        return Path(source)
    match = on_hub(source)
    if not match:
        expected = "a checkpoint, its folder, or org/name@COMMIT"
        raise UserError(source, expected=expected, found="no such file, and no name on the hub")
    if mirror is not None:
        return _in_mirror(source, mirror, match["repo"], match["commit"], match["inside"])
    if not COMMIT.fullmatch(match["commit"] or ""):
        found, fix = match["commit"] or "no commit after an @", how_to_pin(match["repo"])
        raise UserError(source, expected="a pinned revision of 40 hex digits", found=found, fix=fix)
    return _download(source, match["repo"], match["commit"], match["inside"], say)


def _in_mirror(source: str, mirror: Path, repo: str, commit: str | None, inside: str | None) -> Path:
    folders = [mirror / repo, mirror / repo.split("/")[1]]
    if commit is not None:  # a copy of the hub's cache
        folders.append(mirror / f"models--{repo.replace('/', '--')}" / "snapshots" / commit)
    places = [folder / inside for folder in (*folders, mirror)] if inside else folders
    unwanted = ("nothing", "a folder") if inside else ("nothing", "")
    found = next((p for p in places if why_unusable(p) not in unwanted), None)
    if found is None:
        raise UserError(source, expected=f"one of {', '.join(map(str, places))}", found="none of them")
    return found


def _download(source: str, repo: str, revision: str, inside: str | None, say: Callable[[str], None]) -> Path:
    try:
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "downloading a checkpoint") from error
    fix = f"without a network: put {inside or 'its files'} into DIR/{repo} and add --mirror DIR"
    try:
        with quiet_hub():
            # A commit never changes, so a cached file is valid without asking the hub. A cached folder may lack files,
            # so it is used only if the hub cannot be reached.
            if inside is not None and (there := _cached(repo, revision, inside)) is not None:
                return there
            if not constants.HF_HUB_OFFLINE:
                say(f"asking {constants.ENDPOINT} for {source}")
            if why := no_answer():
                if inside is None and (there := _cached(repo, revision, inside)) is not None:
                    return there
                raise CoolsdError(source, expected="the hub, or a copy in its cache", found=why, fix=fix)
            return _fetched(repo, revision, inside)
    except LocalEntryNotFoundError as error:
        raise CoolsdError(source, expected="the hub, or a copy in its cache", found="neither", fix=fix) from error
    except HfHubHTTPError as error:
        expected = "a repository, revision and file of the hub"
        raise CoolsdError(source, expected=expected, found=_first(error), fix=fix) from error
    except CoolsdError:
        raise
    except Exception as error:  # the hub's HTTP library varies
        raise CoolsdError(source, expected="the hub's answer", found=_first(error), fix=fix) from error


def _cached(repo: str, revision: str, inside: str | None) -> Path | None:
    """Return a file or folder of the hub's cache; None if it is not there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _fetched(repo, revision, inside, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def _fetched(repo: str, revision: str, inside: str | None, **more: Any) -> Path:
    """Download a file, or a repository's safetensors files; its pickles if it has no safetensors."""
    import huggingface_hub

    if inside is not None:
        return Path(huggingface_hub.hf_hub_download(repo, inside, revision=revision, **more))
    for patterns in (_SAFE, _PICKLES):
        allowed = list(patterns)
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=allowed, **more))
        if any(folder.glob("*.safetensors")):
            break
    return folder


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
