"""Unpacking of files that come from outside: zip and gzip, within limits, and never out of the folder."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmcoder_tasks.errors import ReleaseError

MAX_TOTAL_BYTES = 512 * 1024**2
"""Of one release, unpacked. The largest official one has 60 MB."""

MAX_FILES = 500
MAX_RATIO = 100
"""Unpacked to packed size. Official files reach 18; a bomb has 1,000."""

_RATIO_FREE_BYTES = 1024**2  # a small file may shrink as it likes
_MAX_NESTING = 2  # a zip in a zip is how some releases come
_BLOCK = 1024**2


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One unpacked file of a release; `name` is its path within the source, with forward slashes."""

    name: str
    data: bytes


class Budget:
    """What unpacking may still cost, over all files of a release."""

    def __init__(self, max_bytes: int = MAX_TOTAL_BYTES, max_files: int = MAX_FILES) -> None:
        self._bytes_left = max_bytes
        self._files_left = max_files

    def take_file(self, name: str) -> None:
        """Count one file. Raises ReleaseError when there are too many."""
        self._files_left -= 1
        if self._files_left < 0:
            raise ReleaseError(f"more than {MAX_FILES} files: this is not a release", file=name)

    def take_bytes(self, count: int, name: str) -> None:
        """Count bytes in memory. Raises ReleaseError when the release is too large."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise ReleaseError(
                f"the release unpacks to more than {MAX_TOTAL_BYTES // 1024**2} MiB: refused as a zip bomb", file=name
            )


def unpack(name: str, data: bytes, budget: Budget, *, nesting: int = 0) -> Iterator[SourceFile]:
    """The files within `data`: itself when it is neither gzip nor zip. Excel workbooks, which are zips too, stay whole.

    Raises ReleaseError for a damaged or encrypted archive, a bomb, a symbolic link, or a member whose path leads out of the
    archive.
    """
    if data.startswith(b"\x1f\x8b"):
        plain = _gunzip(name, data, budget)
        yield from unpack(name.removesuffix(".gz"), plain, budget, nesting=nesting)
    elif data.startswith(b"PK\x03\x04") and b"xl/workbook.xml" not in data:
        if nesting == _MAX_NESTING:
            raise ReleaseError(f"archives are nested more than {_MAX_NESTING} deep: unpack it first", file=name)
        yield from _unzip(name, data, budget, nesting)
    else:
        yield SourceFile(name, data)


def _gunzip(name: str, data: bytes, budget: Budget) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    blocks: list[bytes] = []
    size = 0
    pending = data
    try:
        while pending and not decompressor.eof:
            block = decompressor.decompress(pending, _BLOCK)
            pending = decompressor.unconsumed_tail
            size += len(block)
            _check_ratio(name, size, len(data))
            budget.take_bytes(len(block), name)
            blocks.append(block)
    except zlib.error as error:
        raise ReleaseError(f"damaged gzip file ({error}): copy it again", file=name) from None
    if not decompressor.eof:
        raise ReleaseError("truncated gzip file: copy it again", file=name)
    return b"".join(blocks)


def _unzip(name: str, data: bytes, budget: Budget, nesting: int) -> Iterator[SourceFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _verify_member(name, member)
            _verify_distinct(name, members)
            for member in members:
                if not is_clutter(member.filename):
                    budget.take_file(name)
                    content = _read_member(name, archive, member, budget)
                    yield from unpack(f"{name}/{_member_path(member)}", content, budget, nesting=nesting + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise ReleaseError(f"damaged zip file ({error}): copy it again", file=name) from None


def _member_path(member: zipfile.ZipInfo) -> str:
    return member.filename.replace("\\", "/")


def _verify_member(name: str, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(_member_path(member))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or not path.parts:
        raise ReleaseError(f"the member {member.filename!r} leads out of the archive: refused", file=name)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ReleaseError(f"the member {member.filename!r} is a symbolic link: refused", file=name)
    if member.flag_bits & 1:
        raise ReleaseError(f"the member {member.filename!r} is encrypted: unpack it first", file=name)
    _check_ratio(f"{name}/{member.filename}", member.file_size, member.compress_size)


def _verify_distinct(name: str, members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        path = _member_path(member)
        if path in seen:
            raise ReleaseError(f"the member {path!r} stands twice in the archive: refused", file=name)
        seen.add(path)


def _read_member(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: Budget) -> bytes:
    """Read in blocks: the size that the archive states is only what its author claims."""
    blocks: list[bytes] = []
    size = 0
    with archive.open(member) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            _check_ratio(f"{name}/{member.filename}", size, member.compress_size)
            budget.take_bytes(len(block), name)
            blocks.append(block)
    return b"".join(blocks)


def _check_ratio(name: str, size: int, packed: int) -> None:
    if size > _RATIO_FREE_BYTES and size > MAX_RATIO * packed:
        raise ReleaseError(f"it unpacks to more than {MAX_RATIO} times its size: refused as a zip bomb", file=name)


def is_clutter(path: str) -> bool:
    """Files that desktops leave behind: `.DS_Store`, `__MACOSX/...`, `Thumbs.db`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return any(part.startswith(".") or part in {"__MACOSX", "Thumbs.db", "desktop.ini"} for part in parts)
