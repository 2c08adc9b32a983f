"""Locks of torch's compiler: those of the dead go, those of the living stay."""

from __future__ import annotations

from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root
from torch.utils.file_baton import FileBaton

from llmcoder_tasks.model.compiler_locks import find_operator_cache, remove_abandoned_locks


def test_the_lock_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    abandoned, held = (root / "py311_cpu" / name / "lock" for name in ("deepspeed_shm_comm", "another"))
    for lock in (abandoned, held):
        lock.parent.mkdir(parents=True)
    abandoned.touch()
    baton = FileBaton(str(held))
    assert baton.try_acquire()

    assert remove_abandoned_locks(root) == [abandoned]

    assert (abandoned.exists(), held.exists()) == (False, True)
    baton.release()
    assert remove_abandoned_locks(root) == []


def test_a_cache_that_is_not_there_has_no_locks(tmp_path: Path) -> None:
    assert remove_abandoned_locks(tmp_path / "nothing") == []


def test_the_cache_is_where_torch_keeps_it(tmp_path: Path) -> None:
    assert find_operator_cache({}) == Path(get_default_build_root())
    assert find_operator_cache({"TORCH_EXTENSIONS_DIR": str(tmp_path)}) == tmp_path
