"""Verbs: one file a step. A step owns its side effects, is a transaction when run twice, and never imports another step."""
