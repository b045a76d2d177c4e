"""The page of a report: whole, self-contained, and what a user wrote is text in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from coolsd_rt.bench import html
from coolsd_rt.bench.report import BenchReport
from tests.bench.benching import fake_engine, fake_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> BenchReport:
    return fake_report(fake_engine(tmp_path_factory.mktemp("bench")))


def elements(page: str) -> ET.Element:
    """The body as XML: what is not closed or not escaped does not parse."""
    return ET.fromstring(page[page.index("<body>") : page.index("</body>") + len("</body>")])


def test_the_page_is_whole_and_fetches_nothing(report: BenchReport) -> None:
    page = html.page(report)
    body = elements(page)
    assert len(body.findall(".//{http://www.w3.org/2000/svg}svg")) == 3
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert reference in ids
    assert not re.search(r"<(script|link|img|iframe|object|image)\b", page)
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert set(re.findall(r'\w+="https?://[^"]+"', page)) == {
        'xlink="http://www.w3.org/1999/xlink"',
        'xmlns="http://www.w3.org/2000/svg"',
    }
    text = " ".join(body.itertext())
    for part in (report.command, report.manifest.fingerprint, report.machine["cpu"], *report.verdicts, "red apple"):
        assert part in text
    for table in report.tables:
        for cell in (*table.columns, *(cell for row in table.rows for cell in row)):
            assert cell in text


def test_what_a_user_wrote_is_text(report: BenchReport) -> None:
    bad = '<script>alert("1")</script> & \'<b>'
    job = replace(report.turns[0][0], prompt=bad)
    hurt = replace(
        report, turns=[[job]], command=bad, warnings=(bad,), left_out={bad: bad}, machine={**report.machine, "cpu": bad}
    )
    page = html.page(hurt)
    assert "<script" not in page
    text = "".join(elements(page).itertext())
    assert text.count(bad) >= 5


def test_names_are_drawn_as_they_stand(report: BenchReport) -> None:
    """A dollar is no formula: matplotlib would refuse this one."""
    row = report.rows[1]
    variant = replace(row.timed.variant, name="cost $\\nosuch$ <&>")
    page = html.page(replace(report, rows=(report.rows[0], replace(row, timed=replace(row.timed, variant=variant)))))
    assert "cost $\\nosuch$ <&>" in "".join(elements(page).itertext())
