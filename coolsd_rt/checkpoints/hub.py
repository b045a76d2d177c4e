"""Where a checkpoint is: a path, or a repository of the Hugging Face hub at a pinned revision, downloaded once.

Knows names of repositories, the layout of the hub's cache, and what the hub says when it cannot be reached. Does not
know what is in a checkpoint.
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
    """The file or folder of a SOURCE: a path that is there, or `org/name@commit`, or `org/name@commit:file`.

    mirror: a folder to look in instead of the hub, for `org/name/file`, `name/file` or `file`, where commits are not
    looked at, or for the hub's own cache layout. say: called with a line before the hub is asked. Raises UserError:
    neither, a revision that can move, nothing in the mirror. MissingExtra: no huggingface_hub. CoolsdError: the hub
    cannot be reached, or has no such repository, revision or file.
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
            # A commit does not change, so the hub need not be asked for a file that was downloaded; a folder may lack
            # some, and is taken as it is only where the hub cannot be asked.
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
    except Exception as error:  # of the hub's HTTP library, which is its own choice
        raise CoolsdError(source, expected="the hub's answer", found=_first(error), fix=fix) from error


def _cached(repo: str, revision: str, inside: str | None) -> Path | None:
    """A file or a folder in the hub's cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _fetched(repo, revision, inside, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def _fetched(repo: str, revision: str, inside: str | None, **more: Any) -> Path:
    """A file, or the repository's folder with its safetensors; where it has none, with its pickles."""
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
