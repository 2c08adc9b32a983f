"""
### A new ICD-10-CM release → codes and changes in the database

Starts by itself when a release arrives in the landing place (`LLMCODER_LANDING`, a folder or an S3 prefix; one folder or zip
for each release), and on 1 April and 1 October as the alarm for a release that takes effect and has not arrived. A run by hand
takes `source` (folder, zip, `s3://` prefix or URL); without it, the full April 2026 release that is installed with LLMCoder.
Every loaded release becomes a partition of the asset `icd10cm_release`, and `build_dataset` goes on from there. `report_release`
writes what it changes here: `release_reports` has the figures and the folder of the page.

### On failure

- **ReleaseError**: the release cannot be trusted; the message has file, line and reason, and the database is as it was. Get the
  files again from the publisher, put them into the landing place, and the watcher starts a new run.
- **ReleaseConflict**: this release is loaded with other content. If the publisher corrected it, run by hand with `source` and
  `replace`. Where datasets, models or coded notes were made from the withdrawn content, all of it stays under its key, and the
  corrected content is loaded as `FY2027-corrected-1`, is valid in its stead and starts the loop. Then run `code_encounters` with
  `recode_release`: the report has how many encounters that concerns.
- **ExpectationsFailed**: counts or titles are implausible; Data Docs hold the details. Compare with the publisher's addenda.
- **... takes effect today and has not arrived**: nobody delivered it. Put it into the landing place.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import AssetOrTimeSchedule, Param, dag
from llmcoder_arrivals import list_arrivals
from llmcoder_assets import ICD10CM_RELEASE
from llmcoder_calendar import ReleaseTimetable
from llmcoder_landing import watch_landing
from llmcoder_links import ReleaseDocsLink, ReleaseReportLink
from llmcoder_notifier import ReleaseNotifier
from llmcoder_task import TASK_DEFAULTS, llmcoder_task

from llmcoder_tasks.connections import connect
from llmcoder_tasks.settings import Settings


@dag(
    schedule=AssetOrTimeSchedule(timetable=ReleaseTimetable(), assets=[watch_landing(Settings.from_environment())]),
    params={
        "source": Param(
            None,
            title="Source",
            type=["null", "string"],
            maxLength=1000,
            description="Folder, zip, s3:// prefix or URL. Empty: April 2026, installed.",
        ),
        "release_key": Param(
            None,
            title="Release",
            type=["null", "string"],
            pattern=r"^FY20\d\d(-(January|April|July))?$",
            description="FY2027 or FY2027-April. Empty: the files say.",
        ),
        "replace": Param(
            False,
            title="Replace",
            type="boolean",
            description="Accept the corrected content of a release that is loaded already.",
        ),
    },
    default_args=TASK_DEFAULTS,
    catchup=False,
    max_active_runs=1,
    tags=["llmcoder", "release"],
    doc_md=__doc__,
)
def ingest_release() -> None:
    """Find what there is to load, and load it, oldest first."""

    @llmcoder_task(task_display_name="Find the releases to load")
    def find_releases(*, dag_run: Any = None, params: Any = None, triggering_asset_events: Any = None) -> Any:
        """What arrived, what the params name, or what should have arrived by today."""
        events = [event for of_asset in triggering_asset_events.values() for event in of_asset]
        return list_arrivals(dag_run, params, events, connect())

    @llmcoder_task(
        task_id="ingest_release",
        task_display_name="Load a release",
        map_index_template="{{ task.op_kwargs.release_key or task.op_kwargs.source or 'installed' }}",
        links=[ReleaseDocsLink()],
        on_success_callback=[ReleaseNotifier()],
        outlets=[ICD10CM_RELEASE],
        max_active_tis_per_dagrun=1,
    )
    def ingest(source: str | None, release_key: str | None, *, params: Any = None, outlet_events: Any = None) -> Any:
        """Codes, titles, notes of the tabular list, and the changes against the release before."""
        from llmcoder_tasks.steps.ingest_release import ingest_release

        stores = connect()
        release = ingest_release(
            source,
            release_key=release_key,
            replace=params["replace"],
            storage=stores.storage,
            database=stores.database,
            docs_folder=stores.settings.home / "data_docs",
            s3_endpoint_url=stores.settings.s3_endpoint_url,
        )
        outlet_events[ICD10CM_RELEASE].add_partitions(release.key)
        return release

    # Beside the loop that goes on from the asset: a report that fails leaves the release loaded.
    @llmcoder_task(
        task_id="report_release",
        task_display_name="Report what it changes here",
        map_index_template="{{ task.op_kwargs.release.key }}",
        links=[ReleaseReportLink()],
        max_active_tis_per_dagrun=1,
    )
    def report(release: dict[str, str]) -> Any:
        """Codes that are used here and change, encounters to code again, corrections that die."""
        from llmcoder_tasks.steps.report_release import report_release

        stores = connect()
        return report_release(release["key"], storage=stores.storage, database=stores.database)

    report.expand(release=ingest.expand_kwargs(find_releases()))


ingest_release()
