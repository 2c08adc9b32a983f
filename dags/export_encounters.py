"""
### Encounters whose codes are final → CSV, Parquet and FHIR Bundles

Every hour: exports what was finished, corrected or amended since the last export, each state of each encounter once, into numbered
folders below `exports/` in the artifact store. Final are finished reviews, and notes of which the model is sure in every code.
A run that finds nothing writes nothing. Offsets into notes leave, their text never does.

### On failure

- **ExportError, a folder is not what its manifest says**: somebody changed an export before it was booked. Move the folder away and
  clear the task.
- **ExportError, a bundle is no FHIR R4**: the message names the place in the bundle, never a value. It is a fault of LLMCoder;
  nothing was written.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import CronTriggerTimetable, dag
from llmcoder_task import TASK_DEFAULTS, llmcoder_task

from llmcoder_tasks.connections import connect


@dag(
    schedule=CronTriggerTimetable("15 * * * *", timezone="UTC"),
    default_args=TASK_DEFAULTS,
    catchup=False,
    max_active_runs=1,
    tags=["llmcoder", "export"],
    doc_md=__doc__,
)
def export_encounters() -> None:
    """One step: select, write, book."""

    @llmcoder_task(task_id="export_encounters", task_display_name="Export what is final", reads_notes=True)
    def export() -> Any:
        """Each state of each encounter once."""
        from llmcoder_tasks.steps.export_encounters import export_encounters

        stores = connect()
        return export_encounters(storage=stores.storage, database=stores.database)

    export()


export_encounters()
