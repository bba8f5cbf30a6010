"""An S3 server on loopback, and stores at addresses of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.store.objects.address import connect

BUCKET = "bucket"


@dataclass
class Server:
    """The running server; `address` is a new store's, each time."""

    port: int

    @property
    def env(self) -> dict[str, str]:
        where = f"http://127.0.0.1:{self.port}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-to-be-shown", "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL": where, "AWS_EC2_METADATA_DISABLED": "true", **keys}

    def address(self) -> str:
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"

    def ask(self, path: str, method: str = "GET") -> bytes:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
            return answer.read()

    def fail(self, refuse: int = 0, slow_s: float = 0.0, *, conditional: bool = True) -> None:
        """Let the next requests answer 503, all take longer, and conditional writes be unknown."""
        self.ask(f"faults?refuse={refuse}&slow_s={slow_s}&conditional={int(conditional)}", "POST")

    def requests(self) -> int:
        return sum(json.loads(self.ask("requests")).values())


@pytest.fixture(scope="session")
def s3_process():
    for package in ("moto", "obstore"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = Server(int(process.stdout.readline()))
        server.ask(BUCKET, "PUT")
        yield server
        process.kill()


@pytest.fixture
def s3(s3_process, monkeypatch):
    for name, value in s3_process.env.items():
        monkeypatch.setenv(name, value)
    yield s3_process
    s3_process.fail(refuse=0)


@pytest.fixture(params=["file", "s3"])
def address(request, tmp_path):
    """A new store's address, of each kind."""
    return f"file://{tmp_path / 'objects'}" if request.param == "file" else request.getfixturevalue("s3").address()


@pytest.fixture
def objects(address):
    return connect(address)
