"""Other libraries' loaders are called in one place, where what they would fill in is checked."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "coolsd_rt"
CALLS = {
    r"(?<!AutoTokenizer)\.from_pretrained\(": {"pretrained/load.py"},
    # In the words of an error.
    r"\bAuto(?:Tokenizer|Model|Config|Processor|ImageProcessor)\w*\b": {"pretrained/tokenizer.py"},
    r"Tokenizer\.from_(?:str|file|buffer)\(": {"pretrained/tokenizer.py"},
    # Checked afterwards by `check_filled`.
    r"load_state_dict\([^)]*strict=False": {"metrics/reward.py"},
    r"\btorchvision\.|import torchvision": set(),
}


def test_only_the_loader_calls_what_fills_gaps() -> None:
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    code = {name: re.sub(r'"""[\s\S]*?"""|#.*', "", text) for name, text in texts.items()}
    for pattern, allowed in CALLS.items():
        assert {name for name, text in code.items() if re.search(pattern, text)} == allowed, pattern
