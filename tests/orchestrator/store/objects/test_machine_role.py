"""A store in a bucket with no credentials but those of the machine's role, which its metadata service gives."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.store.objects.address import connect

ROLE = "/latest/meta-data/iam/security-credentials"
CREDENTIALS = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAOFTHEROLE",
    "SecretAccessKey": "s",
    "Token": "t",
}
TIMES = {"LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2126-01-01T00:00:00Z"}


@pytest.fixture
def metadata(monkeypatch):
    """EC2's metadata service on loopback, for a machine with the role `transkd`; the clients that got credentials."""
    clients = set()

    class Answers(BaseHTTPRequestHandler):
        def do_PUT(self):
            self._say(b"session")

        def do_GET(self):
            texts = {ROLE: "transkd", f"{ROLE}/transkd": json.dumps({**CREDENTIALS, **TIMES})}
            path, known = self.path.rstrip("/"), self.headers["X-aws-ec2-metadata-token"] == "session"
            if known and path == f"{ROLE}/transkd":
                clients.add(self.headers["User-Agent"].partition("/")[0])
            self._say(texts.get(path, "").encode() if known else b"")

        def _say(self, body):
            self.send_response(200 if body else 404)
            # how long a session lasts, without which the AWS SDK takes none
            self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"):  # pyarrow's name and obstore's
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    yield clients
    server.shutdown()


def test_both_clients_take_the_credentials_of_the_machines_role(s3, metadata, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile in ~/.aws
    objects = connect(s3.address())
    assert objects.create("once", b"1") and not objects.create("once", b"2")
    objects.write("whole", b"22")
    assert [info.name for info in objects.list("")] == ["once", "whole"] and objects.read("once") == b"1"
    assert metadata == {"aws-sdk-cpp", "object_store"}
