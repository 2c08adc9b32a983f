"""What is around every page, in a real browser: accessible, in light and dark, wide and narrow."""

from __future__ import annotations

from typing import Any

import pytest
from accessibility import assert_accessible, assert_fits

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("path", ["", "nights", "no/such/page"])
def test_a_page_is_accessible_and_fits_in_light_and_dark_wide_and_narrow(visit: Any, path: str) -> None:
    for dark in (False, True):
        for width in (1280, 390):
            page = visit(path, role="op", dark=dark, width=width)
            assert_accessible(page)
            assert_fits(page)
    if path.startswith("no"):
        visit.complaints.clear()  # the browser complains about the 404 itself
