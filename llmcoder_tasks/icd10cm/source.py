"""Where a release comes from: a folder, a file, a zip, an S3 prefix, a URL that the operator gives, or the embedded package.

Everything is read into memory within the limits of `archive.py`; an official release unpacks to 60 MB at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from llmcoder_tasks.errors import ReleaseError, StorageUnreachable
from llmcoder_tasks.icd10cm.archive import MAX_TOTAL_BYTES, Budget, SourceFile, is_clutter, unpack
from llmcoder_tasks.storage import open_storage

_PACKAGE = "simple-icd-10-cm"
_URL_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Source:
    """A release as it arrived.

    `label` says where from, without user, password or query. `name` is the last part of it (`FY2027`). `originals` are the files as
    they came, `files` what is in them.
    """

    label: str
    name: str
    originals: tuple[SourceFile, ...]
    files: tuple[SourceFile, ...]

    @cached_property
    def sha256(self) -> str:
        """Over names and bytes of the originals."""
        digest = hashlib.sha256()
        for original in self.originals:
            digest.update(f"{original.name}\0{len(original.data)}\0".encode())
            digest.update(original.data)
        return digest.hexdigest()


def read_source(source: str | None, *, s3_endpoint_url: str | None = None) -> Source:
    """Read a release from wherever `source` points; None means the embedded one.

    Raises ReleaseError when there is nothing, too much, or something unsafe; StorageUnreachable when nobody answers.
    """
    if source is None:
        return read_embedded_source()
    scheme = urlsplit(source).scheme
    if scheme == "s3":
        return _build(source, _read_s3(source, s3_endpoint_url))
    if scheme in {"http", "https"}:
        return _build(_without_secrets(source), _fetch_url(source))
    if scheme == "file":
        return _build(source, _read_path(Path(unquote(urlsplit(source).path))))
    if scheme and "://" in source:
        raise ReleaseError(f"{scheme}:// is no place for a release: give a folder, a zip, s3://bucket/prefix or https://...")
    path = Path(source).expanduser().resolve()
    return _build(path.as_uri(), _read_path(path))


def read_embedded_source() -> Source:
    """The April 2026 release inside the `simple-icd-10-cm` package: its tabular list and its list of the codes that exist.

    Only the two data files are read; the package's own code, which would parse them at import, is not run.
    """
    spec = find_spec(_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ReleaseError(f"the package {_PACKAGE} is not installed: run `make install`, or give the release as a folder or URL")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    originals = tuple(
        SourceFile(path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if path.suffix in {".txt", ".xml"}
    )
    return Source(label=f"{_PACKAGE} {version(_PACKAGE)}", name=_PACKAGE, originals=originals, files=originals)


def _build(label: str, originals: Iterable[SourceFile]) -> Source:
    budget = Budget()
    kept: list[SourceFile] = []
    files: list[SourceFile] = []
    for original in originals:
        budget.take_file(original.name)
        budget.take_bytes(len(original.data), original.name)
        kept.append(original)
        files += unpack(original.name, original.data, budget)
    if not files:
        raise ReleaseError(f"no file in {label}: give the folder, zip or prefix that holds the release")
    _verify_distinct(files)
    return Source(label, PurePosixPath(urlsplit(label).path).name, tuple(kept), tuple(files))


def _verify_distinct(files: list[SourceFile]) -> None:
    names: set[str] = set()
    for file in files:
        if file.name in names:
            raise ReleaseError("the file is there twice, packed and unpacked: keep one of the two", file=file.name)
        names.add(file.name)


def _read_path(path: Path) -> Iterator[SourceFile]:
    if path.is_file():
        yield _read_file(path, path.name)
        return
    if not path.is_dir():
        raise ReleaseError(f"there is no file or folder {path}: check the source")
    for below in sorted(path.rglob("*")):
        name = below.relative_to(path).as_posix()
        if below.is_symlink():
            raise ReleaseError("this is a symbolic link: a release holds files only; put the file itself there", file=name)
        if below.is_file() and not is_clutter(name):
            yield _read_file(below, name)


def _read_file(path: Path, name: str) -> SourceFile:
    try:
        if path.stat().st_size > MAX_TOTAL_BYTES:
            raise ReleaseError(f"larger than {MAX_TOTAL_BYTES // 1024**2} MiB: this is no release file", file=name)
        return SourceFile(name, path.read_bytes())
    except OSError as error:
        raise ReleaseError(f"cannot be read ({error.strerror}): check its permissions", file=name) from None


def _read_s3(uri: str, endpoint_url: str | None) -> Iterator[SourceFile]:
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    bucket = open_storage(f"s3://{parts.netloc}", endpoint_url=endpoint_url)
    if prefix and bucket.exists(prefix):
        yield SourceFile(PurePosixPath(prefix).name, bucket.read_bytes(prefix))
        return
    for key in bucket.list_keys(prefix):
        name = key[len(prefix) :].lstrip("/")
        if name and not key.endswith("/") and not is_clutter(name):
            yield SourceFile(name, bucket.read_bytes(key))


def _fetch_url(url: str) -> Iterator[SourceFile]:
    """One file over HTTP: most often the zip that CDC or CMS offers. At most five redirects, all of them http or https."""
    import httpx

    place = _without_secrets(url)
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=5, timeout=_URL_TIMEOUT_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code >= 500:
                raise StorageUnreachable(f"{place} answers {response.status_code}: try again later")
            if response.status_code != 200:
                raise ReleaseError(f"{place} answers {response.status_code}: check the address")
            name = PurePosixPath(unquote(response.url.path)).name or "release"
            blocks: list[bytes] = []
            size = 0
            for block in response.iter_bytes():
                size += len(block)
                if size > MAX_TOTAL_BYTES:
                    raise ReleaseError(f"{place} is larger than {MAX_TOTAL_BYTES // 1024**2} MiB: this is no release")
                blocks.append(block)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise ReleaseError(f"cannot fetch {place} ({type(error).__name__}): check the address") from None
    except httpx.HTTPError as error:
        raise StorageUnreachable(f"no answer from {place} ({type(error).__name__}): try again, or check the network") from None
    yield SourceFile(name, b"".join(blocks))


def _without_secrets(url: str) -> str:
    """The address without user, password, query and fragment: it is stored and logged."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
