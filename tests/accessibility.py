"""What axe-core finds on a page that somebody cannot use: `assert_accessible(page)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GRAVE = {"serious", "critical"}


def assert_accessible(page: Any) -> None:
    """Fail on each violation that axe-core calls serious or critical, with the place and the cure."""
    import axe_playwright_python

    script = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)  # not a script element, which the page's content security policy refuses
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    grave = [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
    assert not grave, "\n".join(grave)


def assert_fits(page: Any) -> None:
    """Fail when the page is wider than its window, which makes people scroll sideways."""
    wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url} is {wide} px wider than its window"
