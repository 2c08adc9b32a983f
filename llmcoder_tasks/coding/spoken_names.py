"""What clinicians say, and the name in the release that they mean: the shipped list `spoken_names.tsv`."""

from __future__ import annotations

from pathlib import Path

SPOKEN_NAMES_FILE = Path(__file__).with_name("spoken_names.tsv")


def read_spoken_names() -> list[tuple[str, str]]:
    """Pairs of a spoken name and a title or term. Names that a release lacks are for the caller to pass over."""
    lines = SPOKEN_NAMES_FILE.read_text(encoding="utf-8").splitlines()
    return [(said, meant) for said, _, meant in (line.partition("\t") for line in lines if line and not line.startswith("#"))]
