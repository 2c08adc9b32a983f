"""What one DAG leaves for the next: the assets, each partitioned by the id of the thing it names.

| asset | partition key | written by | read by |
|---|---|---|---|
| icd10cm_release | release key, `FY2026-April` | ingest_release | build_dataset |
| dataset | dataset id | build_dataset | train_model |
| promoted_model | model id | train_model, rollback_model | people; the night reads the pointer |

Keys are decided while the task runs, so a producer calls `outlet_events[ASSET].add_partitions(key)`. No asset has a URI with a
scheme: looking for its handler, Airflow would import every provider (boto3 and all) in each process that parses a DAG.
"""

from __future__ import annotations

from airflow.sdk import Asset

ICD10CM_RELEASE = Asset("icd10cm_release", group="llmcoder")
DATASET = Asset("dataset", group="llmcoder")
PROMOTED_MODEL = Asset("promoted_model", group="llmcoder")
