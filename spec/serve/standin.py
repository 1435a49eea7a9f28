#!/usr/bin/env python3
"""A server of the Compute API that is not ours: each path below it has other manners.

Prints its port. http://127.0.0.1:PORT/MANNER is the base of the four operations; GET /seen/MANNER
tells how often each was asked for. Commands run here, as they are: they are the tests' own.
"""
import http.server
import json
import subprocess
import threading

seen = {}
lock = threading.Lock()
made = [0]


def count(manner, op):
    with lock:
        calls = seen.setdefault(manner, {})
        calls[op] = calls.get(op, 0) + 1
        return calls[op]


def run(body):
    command = body["command"]
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    r = subprocess.run(argv, capture_output=True, check=False)
    code = r.returncode if r.returncode >= 0 else 128 - r.returncode
    return code, r.stdout.decode(errors="replace"), r.stderr.decode(errors="replace")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, answer, headers=(), raw=None, kind="application/json"):
        data = raw if raw is not None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, code, headers=()):
        self.send(status, {"error": {"code": code, "message": "said " + code, "type": "x"}}, headers)

    def hang_up(self):
        self.close_connection = True

    def do_GET(self):
        self.send(200, seen.get(self.path.rpartition("/")[2], {}))

    def do_POST(self):
        manner, op = self.path.strip("/").split("/")[0], self.path.rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        times = count(manner, op)
        special = getattr(self, f"{manner}_{op}", None)
        if special:
            special(body, times)
        else:
            getattr(self, op)(manner, body)

    # ---- as most would ----

    def create(self, manner, body):
        with lock:
            made[0] += 1
            number = made[0]
        answer = {"sandbox_id": f"their-{number}", "status": "running"}
        if manner == "new":
            answer["config"] = {"image": "python:3.11", "timeout": body["timeout"], "cpu": 2,
                                "memory": 2048, "gpu": None}
            answer["created_at"] = "2026-01-01T00:00:00Z"
        self.send(200, answer)

    def exec(self, manner, body):
        code, out, err = run(body)
        answer = {"sandbox_id": body["sandbox_id"], "stdout": out, "stderr": err}
        answer["exit_code" if manner == "new" else "returncode"] = code
        if manner == "new":
            answer["duration_ms"] = 7
        self.send(200, answer)

    def terminate(self, manner, body):
        self.send(200, {"sandbox_id": body["sandbox_id"], "status": "terminated"})

    def status(self, manner, body):
        answer = {"sandbox_id": body["sandbox_id"], "status": "running"}
        if manner == "new":
            answer["expires_at"] = "2031-02-03T04:05:06.789+01:00"
            answer["commands_executed"] = 41
        self.send(200, answer)

    # ---- as some do ----

    def finished_status(self, body, _):
        self.send(200, {"sandbox_id": body["sandbox_id"], "status": "terminated",
                        "state": "finished", "returncode": 7})

    def expired_status(self, body, _):
        self.send(200, {"sandbox_id": body["sandbox_id"], "status": "terminated",
                        "reason": "sandbox_timeout"})

    def vanished_status(self, _body, _times):
        self.fail(404, "not_found")

    def garbled_status(self, _body, _times):
        self.send(200, None, raw=b"<html>welcome</html>", kind="text/html")

    def null_exec(self, body, _):
        self.send(200, {"sandbox_id": body["sandbox_id"], "exit_code": None, "stdout": "x"})

    def lostexec_exec(self, _body, _times):
        self.hang_up()

    def lostcreate_create(self, _body, _times):
        self.hang_up()

    def busy_create(self, body, times):
        if times < 3:
            self.fail(429, "rate_limited", [("Retry-After", "1")])
        else:
            self.create("old", body)

    def full_create(self, _body, _times):
        self.fail(503, "capacity")

    def html_create(self, _body, _times):
        self.send(200, None, raw=b"<html>welcome</html>", kind="text/html")

    def moved_create(self, _body, _times):
        self.send(302, {}, [("Location", "http://127.0.0.1:1/stolen")])

    def noid_create(self, _body, _times):
        self.send(200, {"status": "running"})

    def badid_create(self, _body, _times):
        self.send(200, {"sandbox_id": "a b\n" + "x" * 100, "status": "running"})

    def same_create(self, _body, _times):
        self.send(200, {"sandbox_id": "always", "status": "running"})

    def huge_exec(self, _body, _times):
        self.send(200, None, raw=b'{"stdout":"' + b"x" * (20 << 20) + b'"}')

    def gone_exec(self, _body, _times):
        self.fail(410, "sandbox_terminated")

    def late_exec(self, body, _):
        self.send(408, {"error": {"code": "sandbox_timeout", "message": "over", "type": "x"},
                        "sandbox_id": body["sandbox_id"], "stdout": "so far", "stderr": "",
                        "reason": "sandbox_timeout", "duration_ms": 5})

    def gateway_exec(self, _body, _times):
        self.send(502, None, raw=b"bad gateway", kind="text/plain")

    def failed_exec(self, _body, _times):
        self.fail(500, "exec_failed")

    def cut_exec(self, body, _):
        self.send(200, {"sandbox_id": body["sandbox_id"], "exit_code": 0, "stdout": "ab",
                        "stderr": "", "truncated": True})

    def stream(self, data):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def halfstream_exec(self, _body, _times):
        self.stream(b'event: stdout\r\ndata: {"data":\r\ndata: "aGFsZg=="}\r\n\r\n')

    def badstream_exec(self, _body, _times):
        self.stream(b'event: stdout\ndata: {"data": "not base64"}\n\nevent: exit\ndata: {}\n\n')

    def oddstream_exec(self, _body, _times):
        self.stream(b': hello\n\nevent: stdout\ndata:{"data": "aGk="}\n\nid: 1\nevent: exit\n'
                    b'data: {"exit_code": 4,\ndata: "reason": "exited"}\n\nevent: stdout\n'
                    b'data: {"data": "aGk="}\n\n')

    def stubborn_terminate(self, body, times):
        if times < 3:
            self.fail(500, "internal")
        else:
            self.terminate("old", body)

    def forgot_terminate(self, _body, _times):
        self.fail(404, "sandbox_not_found")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
