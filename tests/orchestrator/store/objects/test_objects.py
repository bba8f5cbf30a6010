"""Objects over any file system of pyarrow: each must pass these tests. What fails for a moment is tried again."""

import hashlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from pyarrow import fs

from orchestrator.store.objects.address import as_address, check_address, connect
from orchestrator.store.objects.objects import Content, DamagedError, Objects
from trainer.cli import in_one_line
from trainer.config import UnreachableError, UserError
from trainer.files.failure import failure_of


def mock_files(tmp_path, s3):
    return Objects("mock://store", fs._MockFileSystem(datetime.now()), "store")


def sub_tree(tmp_path, s3):
    (tmp_path / "tree").mkdir()
    return Objects("tree://store", fs.SubTreeFileSystem(str(tmp_path / "tree"), fs.LocalFileSystem()), "store")


KINDS = {
    "file": lambda tmp_path, s3: connect(f"file://{tmp_path}/objects"),
    "s3": lambda tmp_path, s3: connect(s3().address()),
    "mock": mock_files,
    "sub-tree": sub_tree,
}
"""A kind of store -> a function that makes one; a new kind is a line here."""


@pytest.fixture(params=KINDS)
def objects(request, tmp_path):
    return KINDS[request.param](tmp_path, lambda: request.getfixturevalue("s3"))


def content(data):
    return Content(hashlib.sha256(data).hexdigest(), len(data))


def names(objects, folder):
    return [info.name for info in objects.list(folder)]


def test_what_is_written_is_read_listed_and_deleted(objects):
    objects.write("a/one", b"1")
    objects.write("a/b/two", b"22")
    objects.write("a/one", b"333")
    assert objects.read("a/one") == b"333"
    assert [(info.name, info.size) for info in objects.list("a")] == [("a/b/two", 2), ("a/one", 3)]
    objects.delete("a/one")
    objects.delete("a/one")
    assert names(objects, "a") == ["a/b/two"] and names(objects, "nothing") == []
    for read in (lambda: objects.read("a/one"), lambda: objects.download("a/one", Path("x"), content(b""))):
        with pytest.raises(FileNotFoundError):
            read()


def test_an_empty_object_is_one(objects):
    objects.write("empty", b"")
    assert objects.read("empty") == b"" and names(objects, "") == ["empty"]


def test_a_large_file_arrives_whole_or_not_at_all(objects, tmp_path):
    data = bytes(range(256)) * 4 * 9000  # two parts of S3's uploads
    (tmp_path / "sent").write_bytes(data)
    with (tmp_path / "sent").open("rb") as file:
        file.seek(5)  # it is sent from its beginning, wherever it was read before
        objects.upload(file, "runs/x/last.pt")
    objects.download("runs/x/last.pt", tmp_path / "got", content(data))
    assert (tmp_path / "got").read_bytes() == data
    with pytest.raises(DamagedError, match="differ from its checksum"):
        objects.download("runs/x/last.pt", tmp_path / "other", content(data[1:]))
    assert sorted(path.name for path in tmp_path.glob("*er*")) == [], "neither the file nor a part of it"


def test_of_many_that_create_an_object_one_does(objects):
    if not objects.creates_once:
        pytest.skip("this kind has no conditional writes")
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: objects.create("lease/000001", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert objects.read("lease/000001") == b"%d" % made.index(True)
    assert objects.create("lease/000001", b"%d" % made.index(True)), "an attempt whose answer was lost has written it"
    assert not objects.create("lease/000001", b"other")


def test_a_store_that_overwrites_what_exists_is_known(s3, monkeypatch):
    objects = connect(s3.address())
    monkeypatch.setattr(objects._atomic, "create", lambda name, data: objects.write(name, data) or True)
    assert not objects.creates_once and objects.list("") == []


@pytest.mark.slow
def test_a_server_that_is_busy_is_not_taken_for_one_without_conditional_writes(s3):
    busy, down, unable = (connect(s3.address()) for _ in range(3))
    for objects in (busy, down, unable):
        objects.delays_s = (0.05,)
    s3.fail(refuse=4)
    assert busy.creates_once
    s3.fail(refuse=1000)
    with pytest.raises(UnreachableError, match="does not answer"):
        _ = down.creates_once
    s3.fail(conditional=False)
    assert not unable.creates_once and unable.list("") == []


@pytest.mark.slow
def test_refused_and_slow_requests_are_tried_again(s3):
    objects = connect(s3.address())
    objects.delays_s = (0.05,) * 6
    objects.write("a", b"1")
    for action in (
        lambda: objects.write("a", b"2"),
        lambda: objects.read("a"),
        lambda: objects.list(""),
        lambda: objects.create("b", b"x"),
        lambda: objects.delete("a"),
    ):
        s3.fail(refuse=5, slow_s=0.05)
        action()
        s3.fail()
    assert names(objects, "") == ["b"]


@pytest.mark.slow
def test_a_store_that_refuses_for_long_is_said_in_one_line(s3):
    objects = connect(s3.address())
    objects.delays_s = (0.01,)
    s3.fail(refuse=1000)
    with pytest.raises(UnreachableError, match=r"does not answer .*run the same command again") as error:
        objects.read("a")
    assert "\n" not in str(error.value) and "not-to-be-shown" not in str(error.value)
    assert failure_of(error.value) == ("lost", str(error.value)), "the run is tried again"
    with pytest.raises(SystemExit, match="4"):  # so is the driver, by run-again.sh
        in_one_line(lambda: objects.read("a"))


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(UserError, match=r"store s3://no-such-bucket/x refuses .*; correct its address") as error:
        connect("s3://no-such-bucket/x").write("a", b"1")
    with pytest.raises(UserError, match="no bucket no-such-bucket; correct the address, or make the bucket"):
        connect("s3://no-such-bucket/x").create("a", b"1")
    assert not isinstance(error.value, UnreachableError), "a driver that is started again would fail again"


class Cut:
    """A proxy that cuts its first connections after so many bytes."""

    def __init__(self, port, after, cuts):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.to, self.after, self.cuts = self.server.getsockname()[1], port, after, cuts
        self.lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def _is_cut(self):
        with self.lock:  # parts of one upload are sent at once
            cut = self.cuts > 0
            self.cuts -= cut
        return cut

    def _serve(self):
        while True:
            client, _ = self.server.accept()
            target = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self._copy, args=(client, target, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(target, client, False), daemon=True).start()

    def _copy(self, source, target, upload):
        seen = 0
        try:
            while chunk := source.recv(1 << 16):
                seen += len(chunk)
                if upload and seen > self.after and self._is_cut():
                    break
                target.sendall(chunk)
        except OSError:
            pass
        for each in (source, target):
            each.close()


@pytest.mark.slow
def test_a_connection_that_is_lost_in_an_upload(s3, monkeypatch, tmp_path):
    proxy = Cut(s3.port, after=3 << 20, cuts=6)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    objects = connect(s3.address())
    objects.delays_s = (0.05,) * 6
    (tmp_path / "last.pt").write_bytes(b"x" * (12 << 20))
    with (tmp_path / "last.pt").open("rb") as file:
        objects.upload(file, "last.pt")
    assert proxy.cuts == 0
    objects.download("last.pt", tmp_path / "got", content(b"x" * (12 << 20)))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hdfs://host/x", "must be a folder, s3://BUCKET/PREFIX, .* but got hdfs://host/x"),
        ("s3://", "must name a bucket"),
        ("gs://fill-in-bucket/store", "placeholder gs://fill-in-bucket/store; fill it in, or give --store gs://..."),
        ("s3://key:secret@bucket/x", "must not hold settings or passwords"),
        ("s3://bucket/x?secret_key=abc", "must not hold settings or passwords"),
    ],
)
def test_what_is_no_address_of_a_store(address, message):
    with pytest.raises(UserError, match=message) as error:
        check_address(address)
    assert "secret@" not in str(error.value) and "abc" not in str(error.value)


def test_addresses_that_path_has_folded():
    assert as_address(Path("s3://bucket/x")) == as_address("s3://bucket/x/") == "s3://bucket/x"
    assert as_address("file:///a/b") == as_address(Path("file:///a/b")) == "file:///a/b"
    assert as_address("/a/b") is None and as_address("a:b") is None
