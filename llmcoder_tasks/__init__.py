"""LLMCoder: every ICD-10-CM release becomes a judged coder, and that coder codes every night's discharge summaries."""

from __future__ import annotations

__version__ = "0.1.0"
