"""Clusters of this machine have all of its cores, though other tests run beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coolsd_rt import cores
from tests.own_cores import all_cores


@pytest.fixture(scope="module", autouse=True)
def _all_cores() -> Iterator[None]:
    with all_cores():
        cores.here.cache_clear()
        yield
    cores.here.cache_clear()
