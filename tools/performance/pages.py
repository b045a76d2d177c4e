"""Pages whose tables are made of `docs/performance/results.json`: between two marks stands what `tables` gives.

    <!-- table: NAME -->
    ...
    <!-- end of table -->

Knows marks and files. Does not know what is in a table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.results import save
from tools.performance.tables import NOT_YET, TABLES, Results

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("docs/performance/results.json")
PAGES = (Path("docs/performance.md"), Path("README.md"))
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(\n<!-- end of table -->)", re.DOTALL)


def filled(text: str, results: Results | None) -> str:
    """Return a page with the tables of `results`; None: nothing was measured yet.

    Raises CoolsdError for a name that no table has.
    """

    def table(found: re.Match[str]) -> str:
        name = found[2]
        if name not in TABLES:
            raise CoolsdError(f"<!-- table: {name} -->", expected=f"one of {', '.join(TABLES)}", found=name)
        made = NOT_YET if results is None else TABLES[name](results)
        return f"{found[1]}\n{made.strip()}\n{found[3]}"

    return _TABLE.sub(table, text)


def publish(results: Results, root: Path = ROOT) -> list[Path]:
    """Write the results and every page. Returns what was written. Raises CoolsdError where that is not possible."""
    texts = {page: filled((root / page).read_text(encoding="utf-8"), results) for page in PAGES}
    save(root / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    for page, text in texts.items():
        save(root / page, text.encode())
    return [RESULTS, *texts]
