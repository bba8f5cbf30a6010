"""An S3 server on loopback, a process of its own: moto's, which can be told to fail, to be slow, and to count.

`python s3_server.py` prints its port. `POST /faults?refuse=3&slow_s=0.5` lets the next 3 requests answer 503, and all
take half a second longer; `conditional=0` makes conditional writes unknown. `GET /requests` gives the counts of the
requests so far by method.
"""

import collections
import json
import logging
import threading
import time
from urllib.parse import parse_qsl

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"

NOT_IMPLEMENTED = SLOW_DOWN.replace(b"SlowDown", b"NotImplemented")


class Faulty:
    """moto's application behind the faults that were asked for."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.refuse, self.slow_s, self.is_conditional = 0, 0.0, True
        self.counts = collections.Counter()
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        path, asked = environ["PATH_INFO"], dict(parse_qsl(environ["QUERY_STRING"]))
        if path == "/faults":
            self.refuse, self.slow_s = int(asked.get("refuse", 0)), float(asked.get("slow_s", 0))
            self.is_conditional = bool(int(asked.get("conditional", 1)))
            return self._say(start_response, "200 OK", b"")
        if path == "/requests":
            return self._say(start_response, "200 OK", json.dumps(self.counts).encode())
        with self.lock:
            self.counts[environ["REQUEST_METHOD"]] += 1
            refused, self.refuse = self.refuse > 0, max(0, self.refuse - 1)
        time.sleep(self.slow_s)
        if refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self._say(start_response, "503 Service Unavailable", SLOW_DOWN)
        if environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ:
            if not self.is_conditional:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return self._say(start_response, "501 Not Implemented", NOT_IMPLEMENTED)
            with self.lock:  # moto looks and then writes; a real store does both at once
                return list(self.moto(environ, start_response))
        return self.moto(environ, start_response)

    def _say(self, start_response, status, body):
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Faulty(), threaded=True, request_handler=Handler)
    print(server.port, flush=True)
    server.serve_forever()
