"""Objects: the files below an address, over any pyarrow file system. What fails for a moment is tried again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeVar

from trainer.config import UnreachableError, UserError, masked, message_of
from trainer.files.atomic import replacing

if TYPE_CHECKING:  # it takes a while to import, and most stores are folders
    from pyarrow import fs

DELAYS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between the attempts of a request: a minute at most, with what the clients try themselves."""
CHUNK = 16 << 20
"""Bytes that are read at once; pyarrow's own reading of a whole stream makes a request for each 256 KiB."""
PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|INVALID_SIGNATURE|"
    r"HTTP status (401|403)|HTTP response code (401|403|404)|PermissionDenied|Unauthenticated|AuthenticationFailed|"
    r"bucket does not exist",
    re.IGNORECASE,
)
"""What in an error's text says that no further attempt will help."""

T = TypeVar("T")


class ObjectInfo(NamedTuple):
    """An object: its name below the address, its bytes, and when it was written, in seconds of the store's clock."""

    name: str
    size: int
    written_s: float


class Content(NamedTuple):
    """What must arrive of an object."""

    sha256: str
    size: int


class DamagedError(Exception):
    """An object has other content than it was written with."""


class NotConditionalError(Exception):
    """The server knows no conditional writes."""


class Atomic(Protocol):
    """What pyarrow has not: a write that fails where the object exists. Each kind of store has its own."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object; False, and nothing written, where one has the name. Raises NotConditionalError where the
        server knows no such request."""

    def delete(self, name: str) -> None:
        """Delete an object; nothing where there is none."""


class Objects:
    """The objects below `prefix` of a file system. `address` is for messages; `atomic` is None where the kind of store
    is not known to have conditional writes.

    Methods raise UserError where the store refuses, and UnreachableError where it does not answer for a minute.
    """

    def __init__(self, address: str, filesystem: fs.FileSystem, prefix: str, atomic: Atomic | None = None) -> None:
        self.address = masked(address)
        self.filesystem = filesystem
        self.prefix = prefix.rstrip("/")
        self.delays_s: Sequence[float] = DELAYS_S
        self._atomic = atomic
        self._is_local = filesystem.type_name == "local"

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises FileNotFoundError where there is none."""
        return self._try(lambda: b"".join(self._chunks(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write an object whole, over one of the same name."""
        self._try(lambda: self._write(name, lambda target: target.write(data)))

    def upload(self, source: BinaryIO, name: str) -> None:
        """Write an object from an open file, from its beginning to its end."""

        def copy(target: BinaryIO) -> None:
            source.seek(0)
            while chunk := source.read(CHUNK):
                target.write(chunk)

        self._try(lambda: self._write(name, copy))

    def download(self, name: str, path: Path, content: Content) -> None:
        """Write an object into a file, which appears whole. Raises DamagedError where it has other content, and
        FileNotFoundError where there is none."""

        def copy() -> None:
            found, size = hashlib.sha256(), 0
            with replacing(path) as temporary:
                with temporary.open("wb") as target:
                    for chunk in self._chunks(name):
                        found.update(chunk)
                        size += target.write(chunk)
                if (found.hexdigest(), size) != content:
                    raise DamagedError(f"{self.address}/{name} has {size} bytes that differ from its checksum")

        self._try(copy)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless one has the name; False where one has, and it is another's. Only where
        `creates_once`."""
        assert self._atomic is not None
        atomic = self._atomic
        try:
            if self._try(lambda: atomic.create(name, data)):
                return True
        except FileNotFoundError:
            raise self._no_bucket() from None
        # an attempt whose answer was lost may have written it
        with contextlib.suppress(FileNotFoundError):
            return self.read(name) == data
        return False

    def delete(self, name: str) -> None:
        """Delete an object; nothing where there is none."""

        def once() -> None:
            if self._atomic is not None:
                self._atomic.delete(name)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.delete_file(self._path(name))

        self._try(once)

    def list(self, folder: str) -> list[ObjectInfo]:
        """The objects below a folder, by name."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        found = self._try(lambda: self.filesystem.get_file_info(selector))
        start = len(self.prefix) + 1 if self.prefix else 0
        objects = (
            ObjectInfo(info.path[start:], info.size, info.mtime.timestamp() if info.mtime else 0.0)
            for info in found
            if info.type == fs.FileType.File and not info.base_name.startswith(".")
        )
        return sorted(objects)

    def check_bucket(self) -> None:
        """Raise UserError where the bucket is not there, which is listed and read like an empty one."""
        from pyarrow import fs

        bucket = self.prefix.partition("/")[0]
        try:
            is_absent = bool(bucket) and self.filesystem.get_file_info(bucket).type == fs.FileType.NotFound
        except OSError:  # a role for a prefix may not ask for its bucket
            return
        if is_absent:
            raise self._no_bucket()

    def _no_bucket(self) -> UserError:
        bucket = self.prefix.partition("/")[0]
        return UserError(f"store {self.address}: there is no bucket {bucket}; correct the address, or make the bucket")

    @functools.cached_property
    def creates_once(self) -> bool:
        """Whether `create` refuses what exists: some servers of S3's protocol overwrite it, or know no such request. A
        few requests, once."""
        if self._atomic is None:
            return False
        name = f"probes/{uuid.uuid4().hex}"
        try:
            # one that does not answer now says nothing about it: taken for one without, it would have two drivers
            return self.create(name, b"1") and not self.create(name, b"2")
        except NotConditionalError:
            return False
        finally:
            with contextlib.suppress(UserError):
                self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self.filesystem.open_input_file(self._path(name)) as source:
            size, at = source.size(), 0
            while at < size:
                chunk = source.read_at(min(CHUNK, size - at), at)
                if not chunk:
                    raise OSError(f"{name} ended early")
                at += len(chunk)
                yield chunk

    def _write(self, name: str, copy: Callable[[BinaryIO], object]) -> None:
        path = self._path(name)
        # a folder has no write that appears whole; objects do when their upload ends
        target = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}" if self._is_local else path
        with self._opened(target) as stream:
            copy(stream)
        if self._is_local:
            self.filesystem.move(target, path)

    def _opened(self, path: str) -> BinaryIO:
        try:
            return self.filesystem.open_output_stream(path)
        except FileNotFoundError:  # a kind of store that has folders
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            return self.filesystem.open_output_stream(path)

    def _try(self, action: Callable[[], T]) -> T:
        for delay_s in self.delays_s:
            try:
                return action()
            except (FileNotFoundError, DamagedError, UserError):
                raise
            except Exception as error:
                if not is_of_the_store(error):
                    raise
                if PERMANENT.search(f"{type(error).__name__}: {message_of(error)}"):
                    break
            time.sleep(delay_s * random.uniform(0.5, 1.0))  # drivers that failed together come again apart
        with self._said():
            return action()
        raise AssertionError

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, DamagedError, UserError):
            raise
        except Exception as error:
            if not is_of_the_store(error):
                raise
            why = message_of(error).partition(" Debug source:")[0][:300]
            if PERMANENT.search(f"{type(error).__name__}: {message_of(error)}"):
                raise UserError(
                    f"store {self.address} refuses ({why}); correct its address or the credentials (docs/clusters.md)"
                ) from None
            raise UnreachableError(
                f"store {self.address} does not answer ({why}); see that its server can be reached, and run the same "
                "command again to go on"
            ) from None


def is_of_the_store(error: Exception) -> bool:
    """Whether an error is one of a store's clients: not of this machine's disk, nor a bug."""
    if type(error).__module__.partition(".")[0] == "obstore":
        return True
    return isinstance(error, OSError) and error.filename is None
