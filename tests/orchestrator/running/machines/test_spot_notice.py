"""The notices of the clouds, from a server that answers as their metadata services do."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.running.machines import spot_notice
from orchestrator.running.machines.spot_notice import AT_AWS, AT_GOOGLE, cloud


class Metadata(BaseHTTPRequestHandler):
    """Both services; `notice` is the answer of AWS, and `preempted` that of Google Cloud."""

    notice, preempted = None, "FALSE"

    def do_PUT(self):
        asked = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.answer("a token" if asked else None)

    def do_GET(self):
        answers = {
            ("/latest/meta-data/spot/instance-action", "X-aws-ec2-metadata-token", "a token"): self.notice,
            ("/computeMetadata/v1/instance/preempted", "Metadata-Flavor", "Google"): self.preempted,
        }
        found = [
            text for (path, name, value), text in answers.items() if (path, self.headers[name]) == (self.path, value)
        ]
        self.answer(found[0] if found else None)

    def answer(self, text):
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture
def service(monkeypatch):
    """A service -> its class, whose answers a test sets, and its HOST:PORT. A proxy is set and not to be asked."""
    served = type("Served", (Metadata,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(spot_notice, "TIMEOUT_S", 20.0)
    yield served, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_aws_says_when_it_ends_the_machine(service, monkeypatch):
    served, at = service
    monkeypatch.setenv(AT_AWS, f"http://{at}/")
    ask = cloud()
    assert ask() is None
    for seconds in (120, -5):
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        served.notice = json.dumps({"action": "terminate", "time": f"{end:%Y-%m-%dT%H:%M:%SZ}"})
        assert max(0, seconds - 60) <= ask() <= max(0, seconds)


def test_google_cloud_says_that_it_ends_the_machine_in_30_seconds(service, monkeypatch):
    served, at = service
    monkeypatch.setenv(AT_GOOGLE, at)
    ask = cloud()
    assert ask() is None
    served.preempted = "TRUE\n"
    assert ask() == 30


@pytest.mark.parametrize(
    ("vendor", "variable"), [("Amazon EC2\n", AT_AWS), ("Google\n", AT_GOOGLE), ("Dell Inc.\n", None), (None, None)]
)
def test_no_service_is_asked_but_that_of_the_machines_cloud(tmp_path, monkeypatch, vendor, variable):
    asked = []
    monkeypatch.setattr(spot_notice, "VENDOR", tmp_path / "sys_vendor")
    monkeypatch.setattr(spot_notice, "aws_notice", lambda at: asked.append((AT_AWS, at)))
    monkeypatch.setattr(spot_notice, "google_notice", lambda at: asked.append((AT_GOOGLE, at)))
    monkeypatch.delenv(AT_AWS, raising=False)
    monkeypatch.delenv(AT_GOOGLE, raising=False)
    if vendor is not None:
        (tmp_path / "sys_vendor").write_text(vendor)
    assert cloud()() is None
    default = {AT_AWS: "http://169.254.169.254", AT_GOOGLE: "http://metadata.google.internal"}
    assert asked == ([(variable, default[variable])] if variable else [])
