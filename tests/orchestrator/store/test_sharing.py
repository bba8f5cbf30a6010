"""Who may read and write the files of a store: by the user's umask, or all users of a group."""

from __future__ import annotations

import grp
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store.sharing import group_id, share, write_as_shared
from trainer.config import UserError

ROOT = Path(__file__).parents[3]
WRITE = """
import os, sys
from pathlib import Path

from orchestrator.search.optuna_dashboard import _open
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.sharing import share, write_as_shared
from orchestrator.tracking.mlflow_server import Server
from trainer.files.atomic import replacing

os.umask(int(sys.argv[2], 8))
store = Store(Path(sys.argv[1]))
if len(sys.argv) > 3:
    share(store.root, sys.argv[3])
write_as_shared(store.root)
Ledger(store.ledger, "mine").append({"event": "started", "run_id": "one"})
store.identity
with store.leases.study("mine"):
    store.leases.claim("one", "mine").give_back()
for text in ("first", "second"):
    store.run_dir("one").mkdir(parents=True, exist_ok=True)
    with replacing(store.run_dir("one") / "result.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
Server(store.mlflow_uri, store.artifacts).ask()
_open(store).engine.dispose()
"""


def a_group() -> str:
    """One that this user may give files to, and that new files do not have by themselves where there is such a one."""
    mine = {
        group.gr_gid: group.gr_name for group in grp.getgrall() if not os.geteuid() or group.gr_gid in os.getgroups()
    }
    own = os.getegid()
    return next((name for number, name in mine.items() if number != own), grp.getgrgid(own).gr_name)


def written(store: Path, *words: str) -> dict[Path, os.stat_result]:
    """The store's files and folders once a process has written into it."""
    surroundings = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run(
        [sys.executable, "-c", WRITE, str(store), *words], env={**surroundings, "PYTHONPATH": str(ROOT)}, check=True
    )
    found = {path: path.stat() for path in (store, *store.rglob("*"))}
    assert {"mlflow.db", "optuna.db", "result.json", "identity"} <= {path.name for path in found}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("umask", "forbidden"), [("077", 0o077), ("027", 0o027)])
def test_the_umask_decides_who_may_read_a_store(umask: str, forbidden: int, tmp_path: Path) -> None:
    for path, status in written(tmp_path / "store", umask).items():
        assert not status.st_mode & forbidden, path
        assert status.st_mode & 0o040 == ~forbidden & 0o040, path


@pytest.mark.slow
def test_a_group_reads_and_writes_what_is_made_in_its_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for path, status in written(store, "077", a_group()).items():
        assert status.st_gid == group_id(a_group()), path
        assert status.st_mode & 0o060 == 0o060, path
        assert not status.st_mode & stat.S_IRWXO, path
        assert not path.is_dir() or status.st_mode & stat.S_ISGID, path


def test_a_store_that_is_there_is_given_to_the_group_and_links_are_left(tmp_path: Path) -> None:
    outside, store = tmp_path / "outside", tmp_path / "store"
    (store / "runs" / "one").mkdir(parents=True)
    for file in (outside, store / "ledger.jsonl"):
        file.touch()
        file.chmod(0o600)
    (store / "link").symlink_to(outside)
    before = outside.stat()
    share(store, a_group())
    assert (outside.stat().st_mode, outside.stat().st_gid) == (before.st_mode, before.st_gid)
    assert (store / "ledger.jsonl").stat().st_mode & 0o777 == 0o660
    assert all((store / folder).stat().st_mode & stat.S_ISGID for folder in (".", "runs", "runs/one"))


def test_the_umask_stays_where_no_group_shares_the_store(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_as_shared(tmp_path)
        write_as_shared(tmp_path / "absent")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


def test_a_group_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"group: this machine has no group labb; write one that `id -Gn` lists"):
        share(tmp_path / "store", "labb")
    assert not (tmp_path / "store").exists()
