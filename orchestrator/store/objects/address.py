"""Address: from `s3://bucket/prefix` to its objects. Credentials are read from the environment."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.store.objects.objects import Atomic, NotConditionalError, Objects
from trainer.config import UserError, masked, message_of

if TYPE_CHECKING:
    from pyarrow import fs

SCHEMES = {"s3": "S3", "gs": "Google Cloud Storage", "abfs": "Azure", "abfss": "Azure", "file": "a folder"}
CONNECT_S, REQUEST_S = 10.0, 60.0


def as_address(value: str | Path) -> str | None:
    """`s3://bucket/x` where a path is such an address, of which Path makes `s3:/bucket/x`; None for a folder."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(value))
    if not found:
        return None
    slashes = ":///" if found[1].lower() == "file" else "://"
    return f"{found[1].lower()}{slashes}{found[2].rstrip('/')}"


def check_address(address: str) -> str:
    """The address as given. Raises UserError, with its rule, where it is none of a store."""
    scheme, _, rest = address.partition("://")
    if scheme not in SCHEMES:
        raise UserError(
            f"must be a folder, s3://BUCKET/PREFIX, gs://, abfs:// or file:/// but got {masked(address)}; name one"
        )
    if "?" in address or "#" in address or ("@" in rest.partition("/")[0] and scheme in ("s3", "gs")):
        raise UserError(
            f"must not hold settings or passwords but got {masked(address.partition('?')[0])} with some; set them in "
            "the environment, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID"
        )
    if not rest.strip("/"):
        raise UserError(f"must name a bucket or folder but got {address}; write {scheme}://NAME/PREFIX")
    if rest.startswith("fill-in-"):
        raise UserError(
            f"must name a bucket of yours but got the placeholder {address}; fill it in, or give --store {scheme}://..."
        )
    return address


def connect(address: str) -> Objects:
    """The objects at an address. Raises UserError where no client of it can be made."""
    from pyarrow import fs

    check_address(address)
    scheme, _, rest = address.partition("://")
    try:
        if scheme == "file":
            return Objects(address, fs.LocalFileSystem(), rest, Folder(Path(rest)))
        filesystem, prefix = _filesystem(scheme, rest, address)
        return Objects(address, filesystem, prefix, Conditional(address))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"store {masked(address)} cannot be opened ({message_of(error)[:300]}); see the credentials "
            "(docs/clusters.md)"
        ) from None


def _filesystem(scheme: str, rest: str, address: str) -> tuple[fs.FileSystem, str]:
    from pyarrow import fs

    if scheme != "s3":
        filesystem, prefix = fs.FileSystem.from_uri(address)
        return filesystem, prefix
    options: dict[str, Any] = {"connect_timeout": CONNECT_S, "request_timeout": REQUEST_S, "allow_delayed_open": True}
    if endpoint := _endpoint():
        options |= {"endpoint_override": endpoint}
    return fs.S3FileSystem(region=_region(rest.partition("/")[0]), **options), rest


def _endpoint() -> str:
    """The server of S3's protocol where it is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region(bucket: str) -> str:
    """The region that is set, else the bucket's own."""
    from pyarrow import fs

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if _endpoint() else fs.resolve_s3_region(bucket))


class Folder(Atomic):
    """Of a folder: a link appears whole or not at all, and the first of several processes wins."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str, data: bytes) -> bool:
        """As `Atomic`."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{uuid.uuid4().hex}")
        draft.write_bytes(data)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def delete(self, name: str) -> None:
        """As `Atomic`."""
        (self.root / name).unlink(missing_ok=True)


class Conditional(Atomic):
    """Of S3, Google Cloud Storage and Azure: conditional requests, by obstore. pyarrow deletes in three requests."""

    def __init__(self, address: str) -> None:
        from obstore.store import from_url

        client = {"connect_timeout": f"{CONNECT_S:.0f}s", "timeout": f"{REQUEST_S:.0f}s"}
        options: dict[str, Any] = {}
        if address.startswith("s3:"):
            options["region"] = _region(urlsplit(address).netloc)
            if endpoint := _endpoint():
                options["endpoint"] = endpoint
        self._store: Any = from_url(
            address,
            client_options={**client, "allow_http": _endpoint().startswith("http:")},
            retry_config={"max_retries": 2},
            **options,
        )

    def create(self, name: str, data: bytes) -> bool:
        """As `Atomic`."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            obstore.put(self._store, name, data, mode="create")
        except AlreadyExistsError:
            return False
        except Exception as error:
            if re.search(
                "NotSupported|NotImplemented|501 Not Implemented", f"{type(error).__name__}: {message_of(error)}"
            ):
                raise NotConditionalError from None
            raise
        return True

    def delete(self, name: str) -> None:
        """As `Atomic`."""
        import obstore
        from obstore.exceptions import NotFoundError

        with contextlib.suppress(FileNotFoundError, NotFoundError):
            obstore.delete(self._store, name)
