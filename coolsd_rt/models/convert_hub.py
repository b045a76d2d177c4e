"""Where a checkpoint is: a path, or a repository of the Hugging Face hub at a pinned revision, downloaded once.

Knows names of repositories and what the hub says when it cannot be reached. Does not know what is in a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.models.hub import quiet_hub
from coolsd_rt.spec.sources import COMMIT, how_to_pin, on_hub

_SAFE, _PICKLES = ("*.json", "*.safetensors"), ("*.json", "*.bin", "*.pt", "*.pth", "*.ckpt")


def locate(source: str, mirror: Path | None = None) -> Path:
    """The file or folder of a SOURCE: a path that is there, or `org/name@commit`, or `org/name@commit:file`.

    mirror: a folder to look in instead of the hub, for `org/name/file`, `name/file` or `file`; commits are not looked
    at there. Raises UserError: neither, a revision that can move, nothing in the mirror. MissingExtra: no
    huggingface_hub. CoolsdError: the hub could not be reached, or has no such repository, revision or file.
    """
    if Path(source).exists():
        return Path(source)
    match = on_hub(source)
    if not match:
        expected = "a checkpoint, its folder, or org/name@commit"
        raise UserError(source, expected=expected, found="no such file, and no name on the hub")
    if mirror is not None:
        return _in_mirror(source, mirror, match["repo"], match["inside"])
    if not COMMIT.fullmatch(match["commit"] or ""):
        found, fix = match["commit"] or "no commit behind an @", how_to_pin(match["repo"])
        raise UserError(source, expected="a pinned revision of 40 hex digits", found=found, fix=fix)
    return _download(source, match["repo"], match["commit"], match["inside"])


def _in_mirror(source: str, mirror: Path, repo: str, inside: str | None) -> Path:
    folders = [mirror / repo, mirror / repo.split("/")[1]]
    places = [folder / inside for folder in (*folders, mirror)] if inside else folders
    found = next((p for p in places if (p.is_file() if inside else p.is_dir())), None)
    if found is None:
        raise UserError(source, expected=f"one of {', '.join(map(str, places))}", found="none of them")
    return found


def _download(source: str, repo: str, revision: str, inside: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "downloading a checkpoint") from error
    fix = "try again with a network, or name a folder that has it"
    try:
        with quiet_hub():
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
