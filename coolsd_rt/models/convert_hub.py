"""Where a checkpoint is: a path, or a repository of the Hugging Face hub at a pinned revision, downloaded once.

Knows names of repositories and what the hub says when it cannot be reached. Does not know what is in a checkpoint.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[^:]+)(:(?P<inside>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAFE, _PICKLES = ("*.json", "*.safetensors"), ("*.json", "*.bin", "*.pt", "*.pth", "*.ckpt")


def locate(source: str) -> Path:
    """The file or folder of a SOURCE: a path that is there, or `org/name@commit`, or `org/name@commit:file`.

    Raises UserError: neither, or a revision that can move. MissingExtra: no huggingface_hub. CoolsdError: the hub
    could not be reached, or has no such repository, revision or file.
    """
    if Path(source).exists():
        return Path(source)
    match = _HUB.fullmatch(source)
    if not match:
        expected = "a checkpoint, its folder, or org/name@commit"
        raise UserError(source, expected=expected, found="no such file, and no commit behind an @")
    if not _COMMIT.fullmatch(match["revision"]):
        fix = "copy the commit from the repository's page, Files, History"
        raise UserError(source, expected="a pinned revision of 40 hex digits", found=match["revision"], fix=fix)
    return _download(source, match["repo"], match["revision"], match["inside"])


def _download(source: str, repo: str, revision: str, inside: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "downloading a checkpoint") from error
    fix = "try again with a network, or name a folder that has it"
    said = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity(logging.ERROR)  # it tells of every retry
    try:
        if inside is not None:
            return Path(huggingface_hub.hf_hub_download(repo, inside, revision=revision))
        return _snapshot(repo, revision)
    except LocalEntryNotFoundError as error:
        raise CoolsdError(source, expected="the hub, or a copy in its cache", found="neither", fix=fix) from error
    except HfHubHTTPError as error:
        expected = "a repository, revision and file of the hub"
        raise CoolsdError(source, expected=expected, found=_first(error), fix=fix) from error
    except Exception as error:  # of the hub's HTTP library, which is its own choice
        raise CoolsdError(source, expected="the hub's answer", found=_first(error), fix=fix) from error
    finally:
        huggingface_hub.logging.set_verbosity(said)


def _snapshot(repo: str, revision: str) -> Path:
    """The repository's folder with its safetensors; where it has none, with its pickles."""
    import huggingface_hub

    for patterns in (_SAFE, _PICKLES):
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
        if any(folder.glob("*.safetensors")):
            break
    return folder


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
