"""The artifact store: a folder (`file://`) or S3 (`s3://`), behind the same few calls.

Keys are relative, with forward slashes. A key's content appears whole or not at all. A pointer is a small object that is replaced
only by a caller who names the version it replaces.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from llmcoder_tasks.errors import ArtifactMissing, PointerMoved, StorageError, StorageUnreachable


def open_storage(uri: str, *, endpoint_url: str | None = None) -> Storage:
    """The store under `uri`. Raises StorageError on an unknown scheme, StorageUnreachable when nobody answers."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        storage: Storage = FolderStorage(Path(unquote(parts.path)))
    elif parts.scheme == "s3":
        storage = S3Storage(parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url)
    else:
        raise StorageError(f"artifact store {uri!r} is neither file:// nor s3://")
    storage.endpoint_url = endpoint_url
    return storage


def hash_file(path: Path) -> str:
    """sha256 of a file, hexadecimal, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Storage(ABC):
    """What steps need of an artifact store."""

    uri: str
    endpoint_url: str | None = None
    """The S3 server that settings name, also where this store is a folder: other stores are looked for there."""

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """The content under `key`. Raises ArtifactMissing."""

    @abstractmethod
    def write_bytes(self, key: str, data: bytes) -> None:
        """Write or replace `key`, whole or not at all."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is something under `key`."""

    @abstractmethod
    def list_versions(self, prefix: str) -> dict[str, str]:
        """All keys below the folder `prefix` (`""`: of the store), each with a token that changes when its content does."""

    @abstractmethod
    def fetch_file(self, key: str, target: Path) -> None:
        """Copy one object to a local file. Raises ArtifactMissing."""

    @abstractmethod
    def publish_file(self, source: Path, key: str) -> None:
        """Copy one local file to `key`, whole or not at all."""

    @abstractmethod
    def read_pointer(self, key: str) -> tuple[bytes, str] | None:
        """Content and version of a pointer, or None when it was never written."""

    @abstractmethod
    def write_pointer(self, key: str, data: bytes, *, replaces: str | None) -> None:
        """Replace the version `replaces` (None: create). Raises PointerMoved when another version stands there."""

    def list_keys(self, prefix: str) -> list[str]:
        """All keys below the folder `prefix`, sorted."""
        return sorted(self.list_versions(prefix))

    def uri_of(self, key: str) -> str:
        """The absolute URI of a key."""
        return f"{self.uri}/{key}"

    def key_of(self, uri: str) -> str:
        """The inverse of `uri_of`. Raises StorageError when the URI lies in another store."""
        if not uri.startswith(f"{self.uri}/"):
            raise StorageError(f"{uri} is not in the artifact store {self.uri}: check LLMCODER_ARTIFACTS")
        return uri[len(self.uri) + 1 :]

    def publish_folder(self, source: Path, prefix: str, *, last: str | None = None) -> None:
        """Copy all files of a folder below `prefix`; the file named `last` (a manifest) goes last, so that it proves the rest."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        files.sort(key=lambda path: path.name == last)
        for path in files:
            self.publish_file(path, f"{prefix}/{path.relative_to(source).as_posix()}")

    def fetch_folder(self, prefix: str, target: Path) -> None:
        """Copy all objects below `prefix` into a local folder. Raises ArtifactMissing when there are none."""
        keys = self.list_keys(prefix)
        if not keys:
            raise ArtifactMissing(f"nothing under {self.uri_of(prefix)}")
        for key in keys:
            self.fetch_file(key, target / PurePosixPath(key).relative_to(prefix))


class FolderStorage(Storage):
    """A folder on a disk that all workers see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = folder.as_uri()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnreachable(f"cannot use the folder {folder} as artifact store: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts:
            raise StorageError(f"{key!r} is not a key: expected a relative path without '..'")
        return self.folder.joinpath(*parts)

    def read_bytes(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise ArtifactMissing(f"nothing under {self.uri_of(key)}") from None

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def write_bytes(self, key: str, data: bytes) -> None:
        with self._replacing(key) as temporary:
            temporary.write_bytes(data)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list_versions(self, prefix: str) -> dict[str, str]:
        root = self._path(prefix) if prefix else self.folder
        versions: dict[str, str] = {}
        for path in root.rglob("*"):
            with suppress(FileNotFoundError):  # somebody took it away while we looked
                facts = path.stat()
                if stat.S_ISREG(facts.st_mode) and not path.name.startswith("."):
                    versions[path.relative_to(self.folder).as_posix()] = f"{facts.st_size}-{facts.st_mtime_ns}"
        return versions

    def fetch_file(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.read_bytes(key))

    def publish_file(self, source: Path, key: str) -> None:
        with self._replacing(key) as temporary:
            temporary.write_bytes(source.read_bytes())

    def read_pointer(self, key: str) -> tuple[bytes, str] | None:
        try:
            data = self.read_bytes(key)
        except ArtifactMissing:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def write_pointer(self, key: str, data: bytes, *, replaces: str | None) -> None:
        lock = self._path(key).with_name(f".{PurePosixPath(key).name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            standing = self.read_pointer(key)
            if (standing[1] if standing else None) != replaces:
                raise PointerMoved(f"{self.uri_of(key)} was moved by someone else: read it again and decide anew")
            self.write_bytes(key, data)


class S3Storage(Storage):
    """An S3 bucket (or a server that speaks its API) below a prefix."""

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None = None) -> None:
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        retries = Config(retries={"max_attempts": 4, "mode": "standard"}, connect_timeout=5, read_timeout=60)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=retries)
        with self._errors(""):
            self._client.head_bucket(Bucket=bucket)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn boto's errors into ours, each with its cure."""
        from botocore.exceptions import BotoCoreError, ClientError

        place = self.uri_of(key) if key else self.uri
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in {"NoSuchKey", "404"} and key:
                raise ArtifactMissing(f"nothing under {place}") from None
            if code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                raise PointerMoved(f"{place} was moved by someone else: read it again and decide anew") from None
            raise StorageError(f"S3 refused {place} ({code}): check LLMCODER_ARTIFACTS and the credentials") from error
        except BotoCoreError as error:
            raise StorageUnreachable(
                f"no answer for {place} ({type(error).__name__}): "
                "check LLMCODER_ARTIFACTS, LLMCODER_S3_ENDPOINT_URL and the credentials"
            ) from error

    def read_bytes(self, key: str) -> bytes:
        with self._errors(key):
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
            return body

    def write_bytes(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def exists(self, key: str) -> bool:
        try:
            with self._errors(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ArtifactMissing:
            return False
        return True

    def list_versions(self, prefix: str) -> dict[str, str]:
        base = f"{self.prefix}/" if self.prefix else ""
        folder = f"{base}{prefix.rstrip('/')}/" if prefix else base
        versions: dict[str, str] = {}
        with self._errors(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder):
                versions |= {item["Key"][len(base) :]: item["ETag"] for item in page.get("Contents", [])}
        return versions

    def fetch_file(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(key):
            self._client.download_file(self.bucket, self._key(key), str(target))

    def publish_file(self, source: Path, key: str) -> None:
        with self._errors(key):
            self._client.upload_file(str(source), self.bucket, self._key(key))

    def read_pointer(self, key: str) -> tuple[bytes, str] | None:
        try:
            with self._errors(key):
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
                return answer["Body"].read(), answer["ETag"]
        except ArtifactMissing:
            return None

    def write_pointer(self, key: str, data: bytes, *, replaces: str | None) -> None:
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)
