"""An HTTP server that behaves as a test wants. Prints its port, then serves until its input ends.

/echo       what was asked, as JSON: method, path, headers, body
/status/N   answers with the status N
/to?URL     a redirect (301; /to307?URL: 307)
/big?N      N bytes
/slow?S     begins its answer after S seconds
/drip       one byte every 100 ms, for a minute
/cut        promises 1000 bytes, sends 10 and closes
/cookies    two Set-Cookie headers and two X-Many
"""
import http.server
import json
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path.startswith("/status/"):
            self.answer(int(path[8:]), b"status")
        elif path in ("/to", "/to303", "/to307"):
            self.answer(int(path[3:] or 301), b"go away", [("Location", query)])
        elif path == "/big":
            self.answer(200, b"x" * int(query))
        elif path == "/slow":
            time.sleep(float(query))
            self.answer(200, b"slow")
        elif path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "600")
            self.end_headers()
            for _ in range(600):
                self.wfile.write(b".")
                time.sleep(0.1)
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"0123456789")
            self.close_connection = True
        elif path == "/cookies":
            self.answer(200, b"", [("Set-Cookie", "a=1, x"), ("Set-Cookie", "b=2"),
                                   ("X-Many", "1"), ("x-many", "2")])
        else:
            seen = {"method": self.command, "path": self.path, "body": body.decode("latin-1"),
                    "headers": {k.lower(): v for k, v in self.headers.items()}}
            self.answer(200, json.dumps(seen).encode(), [("Content-Type", "application/json")])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = serve


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
