"""Suites, metrics, error kinds, the gate and the report."""
