"""ICD-10-CM releases: files, tabular list, index, changes, validity by date."""
