"""What must hold of a release's codes and of a dataset's examples, checked by Great Expectations.

The only place that knows Great Expectations. A suite either passes and leaves Data Docs behind, or raises ExpectationsFailed with
one line: suite, expectation, column, bad and total count, up to three examples. Codes come from the release, examples are
generated; the one table that may hold words of patients, corrections, is marked private and never shown.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcoder_tasks.dataset.config import CONDITION_COUNTS
from llmcoder_tasks.dataset.example_frames import chapter_frame, example_frame, leaked_codes
from llmcoder_tasks.dataset.naming import names_of
from llmcoder_tasks.errors import ExpectationsFailed
from llmcoder_tasks.records import CORRECTIONS, find_effective_date

if TYPE_CHECKING:
    import pandas as pd

    from llmcoder_tasks.dataset.examples import Tables
    from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

logger = logging.getLogger(__name__)

CODE_PATTERN = r"^[A-Z][0-9A-Z][0-9A-Z]{1,5}$"
"""A code without its dot: letters may stand in any place (`QA000`, `C4A9`, `S060XAS`)."""

TITLE_LENGTH_LIMIT = 400
"""Characters of a long title, as the release's own documents allow."""

_COUNT_TOLERANCE = 0.05
_COUNT_SLACK = 50  # so that a release of a few codes may change by a few codes
_SEVERAL_CONDITIONS = ("multiple", "notes")
_LENGTH_LIMITS = {"base": TITLE_LENGTH_LIMIT, "multiple": 2_500, "notes": 8_000}  # characters; one condition: 600
_EXAMPLES_SHOWN = 3
_EXAMPLE_WIDTH = 90
_SITE = "data_docs"


@dataclass(frozen=True, slots=True)
class Suite:
    """One table with its expectations. `identity` is the column that names a row when it is shown as an example.

    Of a private table no value is shown, neither in a message nor in Data Docs.
    """

    name: str
    frame: pd.DataFrame
    expectations: Sequence[Any]
    identity: str
    is_private: bool = False


def verify_codes(
    codes: Sequence[Code],
    *,
    release_key: str,
    previous_billable_count: int | None,
    addenda: Mapping[str, str | None] | None,
    docs_folder: Path,
) -> Path:
    """Check the codes of one release and return the first page of its Data Docs.

    `previous_billable_count` is that of the release before, None for the first one: the new count may differ by 5 % and 50.
    `addenda` is what the release's addenda say of billable codes: the long title of a code added or revised, None for a code
    deleted or turned into a header; None as a whole when the release came without addenda. Raises ExpectationsFailed.
    """
    gx = _import_great_expectations()
    suites = [
        Suite("codes", _code_frame(codes), _code_expectations(gx, previous_billable_count, len(codes)), identity="code"),
    ]
    if addenda:
        suites.append(Suite("addenda", _addenda_frame(codes, addenda), _addenda_expectations(gx), identity="code"))
    return verify_suites(gx, suites, subject=f"codes-{release_key}", release_key=release_key, docs_folder=docs_folder)


def _code_frame(codes: Sequence[Code]) -> pd.DataFrame:
    import pandas as pd

    ordered = sorted(code.code for code in codes)
    with_codes_below = {upper for upper, lower in pairwise(ordered) if lower != upper and lower.startswith(upper)}
    return pd.DataFrame(
        {
            "code": [code.code for code in codes],
            "is_billable": [code.is_billable for code in codes],
            "is_lowest_level": [code.code not in with_codes_below for code in codes],
            "short_title": [code.short_title for code in codes],
            "long_title": [code.long_title for code in codes],
            "billable_title": [code.long_title if code.is_billable else None for code in codes],
        }
    )


def _code_expectations(gx: Any, previous_billable_count: int | None, total: int) -> list[Any]:
    e = gx.expectations
    low, high = 1, total
    if previous_billable_count is not None:
        margin = previous_billable_count * _COUNT_TOLERANCE + _COUNT_SLACK
        low, high = max(1, math.floor(previous_billable_count - margin)), math.ceil(previous_billable_count + margin)
    return [
        e.ExpectColumnSumToBeBetween(
            column="is_billable", min_value=low, max_value=high, meta={"name": "billable codes near the release before"}
        ),
        e.ExpectColumnValuesToMatchRegex(column="code", regex=CODE_PATTERN, meta={"name": "code pattern"}),
        e.ExpectColumnValuesToBeUnique(column="code", meta={"name": "unique codes"}),
        *[
            e.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S", meta={"name": "titles present"})
            for column in ("short_title", "long_title")
        ],
        e.ExpectColumnValueLengthsToBeBetween(
            column="long_title", max_value=TITLE_LENGTH_LIMIT, meta={"name": "titles not cut or run together"}
        ),
        e.ExpectColumnValuesToBeUnique(column="billable_title", meta={"name": "unique titles of billable codes"}),
        e.ExpectColumnPairValuesToBeEqual(
            column_A="is_billable", column_B="is_lowest_level", meta={"name": "billable means no code below it"}
        ),
    ]


def _addenda_frame(codes: Sequence[Code], addenda: Mapping[str, str | None]) -> pd.DataFrame:
    import pandas as pd

    titles = {code.code: code.long_title for code in codes if code.is_billable}
    return pd.DataFrame(
        {
            "code": list(addenda),
            "title_in_addenda": [title or "(deleted)" for title in addenda.values()],
            "title_in_release": [titles.get(code, "(deleted)") for code in addenda],
        }
    )


def _addenda_expectations(gx: Any) -> list[Any]:
    return [
        gx.expectations.ExpectColumnPairValuesToBeEqual(
            column_A="title_in_addenda", column_B="title_in_release", meta={"name": "addenda agree"}
        )
    ]


def verify_examples(tables: Tables, *, code_set: CodeSet, subject: str, docs_folder: Path) -> Path:
    """Check every table of a dataset and return the first page of its Data Docs, `docs_folder/subject/index.html`.

    Labels are recomputed from the ids and held against the release; splits are compared across all tables. Raises
    ExpectationsFailed.
    """
    gx = _import_great_expectations()
    leaked, names = leaked_codes(tables), names_of(code_set)
    suites = []
    for scenario, rows in tables.items():
        frame = example_frame(rows, titles=code_set.titles, names=names, leaked=leaked)
        suites.append(Suite(scenario, frame, _example_expectations(gx, scenario), "example_id", scenario == CORRECTIONS))
    # What people correct follows their patients, not the release.
    by_rule = {scenario: rows for scenario, rows in tables.items() if scenario != CORRECTIONS}
    suites.append(Suite("chapters", chapter_frame(by_rule, code_set), _chapter_expectations(gx), identity="chapter"))
    return verify_suites(gx, suites, subject=subject, release_key=code_set.release_key, docs_folder=docs_folder)


def _example_expectations(gx: Any, scenario: str) -> list[Any]:
    e = gx.expectations
    fewest, most = CONDITION_COUNTS if scenario in _SEVERAL_CONDITIONS else (1, 1)
    splits = ["train"] if scenario == "base" else ["train", "validation", "test"]
    return [
        e.ExpectColumnValuesToMatchRegex(column="text", regex=r"\S", meta={"name": "text not empty"}),
        e.ExpectColumnValueLengthsToBeBetween(
            column="text", min_value=2, max_value=_LENGTH_LIMITS.get(scenario, 600), meta={"name": "text length"}
        ),
        e.ExpectColumnValuesToBeNull(column="unbillable_code", meta={"name": "label billable in this release"}),
        e.ExpectColumnPairValuesToBeEqual(column_A="codes", column_B="source_codes", meta={"name": "label unchanged"}),
        e.ExpectColumnPairValuesToBeEqual(
            column_A="condition_count", column_B="code_count", meta={"name": "as many conditions as codes"}
        ),
        e.ExpectColumnValuesToBeBetween(
            column="condition_count", min_value=fewest, max_value=most, meta={"name": "number of conditions of the scenario"}
        ),
        e.ExpectColumnValuesToBeInSet(column="split", value_set=splits, meta={"name": "known split"}),
        e.ExpectColumnValuesToBeUnique(column="example_id", meta={"name": "unique ids"}),
        e.ExpectCompoundColumnsToBeUnique(column_list=["text", "codes"], meta={"name": "no duplicate rows"}),
        e.ExpectColumnValuesToBeNull(column="other_code_named", meta={"name": "text names no other code"}),
        *_title_expectations(gx, scenario),
    ]


def _title_expectations(gx: Any, scenario: str) -> list[Any]:
    e = gx.expectations
    if scenario == "base":
        return [e.ExpectColumnPairValuesToBeEqual(column_A="text", column_B="title", meta={"name": "text is the title"})]
    no_leak = e.ExpectColumnValuesToBeNull(column="leaked_code", meta={"name": "no leak from train into test"})
    if scenario in _SEVERAL_CONDITIONS:
        return [no_leak]
    return [no_leak, e.ExpectColumnValuesToBeNull(column="title_repeated", meta={"name": "text differs from the title"})]


def _chapter_expectations(gx: Any) -> list[Any]:
    return [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column="excess", max_value=0, meta={"name": "share by chapter as in the release"}
        )
    ]


def verify_suites(gx: Any, suites: Sequence[Suite], *, subject: str, release_key: str, docs_folder: Path) -> Path:
    """Run suites, write their Data Docs below `docs_folder/subject`, return the first page.

    Raises ExpectationsFailed when any expectation does not hold. A second run of the same subject replaces its pages.
    """
    site_folder = docs_folder / subject
    context = _open_context(gx, site_folder)
    source = context.data_sources.add_pandas(subject)
    failure = ""
    also_failed: list[str] = []
    checked = 0
    for suite in suites:
        results = _run_suite(gx, context, source, suite, subject=subject, release_key=release_key)
        checked += len(results)
        failed = [result for result in results if not result.success]
        if failed and not failure:
            failure = f"{subject}: {_describe_failure(suite, failed[0])}"
        also_failed += [f"{suite.name} {result.expectation_config.meta['name']!r}" for result in failed]
    context.build_data_docs(site_names=[_SITE])
    if failure:
        more = f"; also failed: {', '.join(also_failed[1:])}" if len(also_failed) > 1 else ""
        raise ExpectationsFailed(f"{failure}{more}; see {site_folder / 'index.html'}")
    rows = sum(len(suite.frame) for suite in suites)
    logger.info("%s: %d expectations hold over %s rows, see %s", subject, checked, f"{rows:,}", site_folder / "index.html")
    return site_folder / "index.html"


def _import_great_expectations() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it logs hundreds of lines a run at INFO
    with warnings.catch_warnings():
        # It imports sre_constants and sre_parse, which Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations
    return great_expectations


def _open_context(gx: Any, site_folder: Path) -> Any:
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site_folder)},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={_SITE: site},
        analytics_enabled=False,
        progress_bars={"globally": False},
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _run_suite(gx: Any, context: Any, source: Any, suite: Suite, *, subject: str, release_key: str) -> list[Any]:
    from great_expectations.core.run_identifier import RunIdentifier

    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
    expectations = context.suites.add(gx.ExpectationSuite(name=suite.name, expectations=list(suite.expectations)))
    validation = gx.ValidationDefinition(name=suite.name, data=batch, suite=expectations)
    checkpoint = gx.Checkpoint(
        name=suite.name,
        validation_definitions=[context.validation_definitions.add(validation)],
        result_format={"result_format": "BOOLEAN_ONLY"}
        if suite.is_private
        else {
            "result_format": "SUMMARY",
            "partial_unexpected_count": _EXAMPLES_SHOWN,
            "unexpected_index_column_names": [suite.identity],
        },
    )
    # The run is named by what was checked, not by the hour, so that checking it again replaces its page.
    run = RunIdentifier(run_name=subject, run_time=datetime.combine(find_effective_date(release_key), time.min, tzinfo=UTC))
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": suite.frame}, run_id=run)
    results = [result for validated in outcome.run_results.values() for result in validated.results]
    names = [expectation.meta["name"] for expectation in suite.expectations]  # the order in which a person wants to read them
    return sorted(results, key=lambda result: names.index(result.expectation_config.meta["name"]))


def _describe_failure(suite: Suite, result: Any) -> str:
    config = result.expectation_config
    columns = [config.kwargs[key] for key in ("column", "column_A", "column_B") if key in config.kwargs]
    columns += config.kwargs.get("column_list", [])
    column = " and ".join(columns) or "(whole table)"
    return f"suite {suite.name}: expectation {config.meta['name']!r} failed on column {column}: {_describe_finding(suite, result)}"


def _describe_finding(suite: Suite, result: Any) -> str:
    if suite.is_private:
        return f"of {len(suite.frame):,} rows, which are not shown: they may hold words of patients"
    found = result.result
    if "unexpected_count" in found:
        examples = "; ".join(dict.fromkeys(_describe_row(suite, row) for row in found["partial_unexpected_index_list"]))
        return f"{found['unexpected_count']:,} of {found['element_count']:,} rows, for example {examples}"
    if "observed_value" in found:
        kwargs = result.expectation_config.kwargs
        return f"{found['observed_value']:,} is not between {kwargs['min_value']:,.6g} and {kwargs['max_value']:,.6g}"
    return f"it could not be checked over {len(suite.frame):,} rows ({_first_exception(result)})"


def _describe_row(suite: Suite, row: Mapping[str, Any]) -> str:
    name = f"{suite.identity} {row[suite.identity]}"
    values = [f"{column} {_shorten(value)}" for column, value in row.items() if column != suite.identity]
    return f"{name} ({', '.join(values)})" if values else name


def _shorten(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _EXAMPLE_WIDTH else f"{text[: _EXAMPLE_WIDTH - 3]}..."


def _first_exception(result: Any) -> str:
    info = result.exception_info
    details = info if "exception_message" in info else next(iter(info.values()), {})
    return str(details.get("exception_message")).strip().splitlines()[0]
