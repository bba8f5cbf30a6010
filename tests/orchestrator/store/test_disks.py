"""Which folders lie on network file systems, and where the databases of a store there are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.search.optuna_dashboard import database as optuna_database
from orchestrator.store import disks
from orchestrator.store.disks import file_system, is_on_network, own_folder
from orchestrator.store.folder import Store
from orchestrator.store.objects.working_copy import working_folder
from orchestrator.tracking.address import uri_of
from trainer.config import UserError

MOUNTS = r"""
21 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw
30 21 0:40 / /home rw,relatime shared:2 - nfs4 10.0.0.1:/home rw,vers=4.1
31 21 0:41 / /mnt/two\040words rw - cifs //server/share rw
32 21 0:42 / /mnt/efs rw - autofs systemd-1 rw,fd=29
33 32 0:43 / /mnt/efs rw,relatime - efs fs-1.efs.eu-west-1.amazonaws.com:/ rw
34 21 0:44 / /mnt/sshfs rw - fuse.sshfs me@host: rw
35 21 0:45 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
36 21 0:46 / /mnt/layers rw - fuse.fuse-overlayfs fuse-overlayfs rw
37 21 0:47 / /mnt/lustre rw - lustre 10.0.0.2@tcp:/scratch rw
38 37 259:2 / /mnt/lustre/local rw - xfs /dev/nvme1n1 rw
39 21 0:48 / /mnt/gpfs rw - gpfs fs1 rw
40 21 0:49 / /mnt/s3 rw - fuse s3fs rw
42 21 0:51 / /mnt/host rw - virtiofs host rw
"""


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with these mounts, on which the tests' own folder is NFS."""
    (tmp_path / "mountinfo").write_text(f"{MOUNTS.strip()}\n41 21 0:50 / {tmp_path}/nfs rw - nfs4 a:/b rw\n")
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    ("folder", "kind", "network"),
    [
        ("/data/store", "ext4", False),
        ("/home/me/store", "nfs4", True),
        ("/homes/me", "ext4", False),
        ("/mnt/two words/store", "cifs", True),
        ("/mnt/efs/store", "efs", True),
        ("/mnt/sshfs", "fuse.sshfs", True),
        ("/mnt/ntfs", "fuseblk", False),
        ("/mnt/layers/x", "fuse.fuse-overlayfs", False),
        ("/mnt/lustre/store", "lustre", True),
        ("/mnt/lustre/local/store", "xfs", False),
        ("/mnt/gpfs", "gpfs", True),
        ("/mnt/s3", "fuse", True),
        ("/mnt/host", "virtiofs", False),
    ],
)
def test_the_file_system_of_a_folder_and_whether_it_is_a_networks(folder: str, kind: str, network: bool) -> None:
    assert (file_system(Path(folder)), is_on_network(Path(folder))) == (kind, network)


def test_where_mounts_cannot_be_read_a_folder_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "MOUNTS", Path("/absent"))
    assert file_system(Path("/home")) == "" and not is_on_network(Path("/home"))


def test_databases_of_a_store_on_a_network_are_kept_on_the_own_disk(tmp_path: Path) -> None:
    store, local = Store(tmp_path / "nfs" / "store"), Store(tmp_path / "store")
    assert local.database == tmp_path / "store" / "mlflow.db"
    folder = store.database.parent
    assert folder.parent == tmp_path / "cache" / "databases" and folder.name.startswith("store-")
    assert uri_of(store) == f"sqlite:///{folder}/mlflow.db"
    assert optuna_database(store) == f"sqlite:///{folder}/optuna.db"
    assert store.artifacts == store.root / "mlartifacts"
    assert Store(tmp_path / "nfs" / "other" / "store").database != store.database


def test_where_home_is_on_a_network_the_own_disk_is_that_of_var_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSKD_CACHE", "/home/me/.cache/transkd")
    assert own_folder() == Path(f"/var/tmp/transkd-{os.getuid()}")


def test_a_database_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nfs").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/nfs/mlflow.db")
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI must be a server, or .* is on nfs4, which damages"):
        uri_of(Store(tmp_path / "store"))


def test_the_working_copy_of_an_address_is_on_the_own_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSKD_CACHE", "/home/me/.cache/transkd")
    assert working_folder("s3://bucket/store").parent == own_folder() / "stores"
