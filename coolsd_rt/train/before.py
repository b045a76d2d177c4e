"""What is checked before a training loads anything: paths, data, and whether its files are its own.

Knows files. Does not know networks or how training works.
"""

from __future__ import annotations

from coolsd_rt.errors import UserError
from coolsd_rt.files import check_target, read_text, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.outputs import check_output
from coolsd_rt.train.config import TrainConfig
from coolsd_rt.train.data import check_data

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"  # files in the request's folder
WRITTEN = "written.txt"  # file with the SHA-256 of every version of the weights that was written


def check_before(request: TrainConfig) -> None:
    """Check everything that is known before loading anything. Raises UserError."""
    check_data(request.data, request.prompts)
    check_folder(request.out.parent)
    check_folder(request.folder)
    check_target(request.out)
    if request.start_from is not None and (found := why_unusable(request.start_from)):
        raise UserError(f"--from {request.start_from}", expected="a draft's weights file", found=found)
    if request.out.suffix != ".safetensors":
        raise UserError("--out", expected="a name that ends in .safetensors", found=str(request.out))
    if request.out.exists() and not _is_own(request):
        fix = "choose another with --out FILE, and start from this one with --from FILE, or replace it: --overwrite"
        raise UserError(str(request.out), expected="no file, or one that this training wrote", found="one", fix=fix)
    check_output(request.out, "--out", overwrite=True)


def _is_own(request: TrainConfig) -> bool:
    """Whether an existing weights file may be replaced: this training wrote it, or `overwrite` is set."""
    if request.overwrite:
        return True
    if not (request.folder / CHECKPOINT).exists() or not request.out.is_file():
        return False
    log = request.folder / WRITTEN  # earlier versions did not write it
    if not log.exists():
        return True
    return sha256_file(request.out) in read_text(log, "the hashes of what this training wrote", RESULT_BYTES).split()
