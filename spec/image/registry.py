#!/usr/bin/env python3
"""A registry that serves an OCI layout and misbehaves when told to.

    registry.py LAYOUT [--tls CERT KEY]        prints "port N" and serves until it is killed

POST /_set takes a JSON object of faults, replacing those before; GET /_log returns the requests since
the last /_set as a JSON list. Faults:
    cut        [N, ...]   the next blob answers end after N bytes, one number each
    fail       [S, ...]   the next blob requests are answered with these statuses, 0 for none
    retry_after  N        sent along with "fail"
    no_range   true       Range is ignored
    bad_range  true       another range than asked for is sent
    corrupt    true       the last byte of each blob is another
    longer     true       one byte too many is sent
    lie_manifest true     manifests by digest are answered with another document
    auth       "token" | "basic" | "expire"   a login is needed (user "u", password "p");
               "expire": each token is good for four requests
    realm      URL        where tokens are had, instead of here
    redirect   URL        blobs are elsewhere: this base URL
    delay      SECONDS    before each answer
    config_size N         what manifests say about the size of the configuration
    endless    "error" | "token"   manifests are 404, or tokens come, with a body that has no end
    hang       true       a token never comes
    schema2    true       types are Docker's
    upload     URL        blobs are to be sent there: this base URL
    fail_put   [S, ...]   the next blobs that are sent are answered with these statuses
What is sent is kept in memory and served like the rest.
"""
import base64
import hashlib
import http.server
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse

layout = sys.argv[1]
faults, log, tokens = {}, [], {}
sent, named = {}, {}  # what was pushed: blobs and manifests by digest, digests by tag
lock = threading.Lock()
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def blob_path(digest):
    return os.path.join(layout, "blobs", "sha256", digest.split(":")[1])


def find(tag):
    if tag in named:
        return named[tag], OCI_MANIFEST
    index = json.load(open(os.path.join(layout, "index.json")))
    for m in index["manifests"]:
        if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            return m["digest"], m["mediaType"]
    return None, None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", headers=None):
        self.send_response(status)
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def endless(self, status):
        self.send_response(status)
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(b"x" * 65536)

    def error(self, status, message, headers=None):
        self.reply(status, json.dumps({"errors": [{"code": "X", "message": message}]}).encode(), headers)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_set":
            with lock:
                faults.clear()
                faults.update(json.loads(body))
                log.clear()
                tokens.clear()
            return self.reply(200)
        if self.path.endswith("/blobs/uploads/"):
            self.note()
            if not self.allowed():
                return None
            return self.reply(202, b"", {"Location": faults.get("upload", "") + self.path + "1?state=x"})
        if self.path == "/token":
            form = urllib.parse.parse_qs(body.decode())
            self.note(form={k: v[0] for k, v in form.items()})
            if form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == ["identity"]:
                return self.give_token()
            return self.error(401, "no")
        return self.error(405, "no")

    def do_HEAD(self):
        self.note()
        if not self.allowed():
            return None
        digest = self.path.split("/")[-1]
        there = digest in sent or os.path.exists(blob_path(digest))
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.note(bytes=len(body))
        if not self.allowed():
            return None
        url = urllib.parse.urlparse(self.path)
        with lock:
            fail = faults["fail_put"].pop(0) if faults.get("fail_put") else None
        if fail:
            return self.error(fail, "told to")
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if "/manifests/" in url.path:
            document = json.loads(body)
            if any(d["digest"] not in sent and not os.path.exists(blob_path(d["digest"]))
                   for d in document["layers"] + [document["config"]]):
                return self.error(400, "manifest blob unknown")
            named[url.path.split("/")[-1]] = digest
        elif urllib.parse.parse_qs(url.query).get("digest") != [digest]:
            return self.error(400, "digest invalid")
        sent[digest] = body
        return self.reply(201, b"", {"Docker-Content-Digest": digest})

    def note(self, **more):
        with lock:
            log.append(dict(path=self.path, method=self.command, authorization=self.headers.get("Authorization"),
                            range=self.headers.get("Range"), agent=self.headers.get("User-Agent"), **more))

    def give_token(self):
        with lock:
            scope = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).get("scope", [""])[0]
            token = "token-%d%s" % (len(tokens), "-push" if "push" in scope else "")
            tokens[token] = 4 if faults.get("auth") == "expire" else 1000
        return self.reply(200, json.dumps({"token": token}).encode())

    def basic(self):
        a = self.headers.get("Authorization") or ""
        return a.startswith("Basic ") and base64.b64decode(a[6:]) == b"u:p"

    def allowed(self):
        kind = faults.get("auth")
        if not kind:
            return True
        if kind == "basic":
            if self.basic():
                return True
            self.error(401, "login", {"WWW-Authenticate": 'Basic realm="x"'})
            return False
        a = self.headers.get("Authorization") or ""
        writes = self.command in ("POST", "PUT")
        with lock:
            left = tokens.get(a[7:], 0)
            tokens[a[7:]] = left - 1
        if a.startswith("Bearer ") and left > 0 and (not writes or a.endswith("-push")):
            return True
        realm = faults.get("realm") or "%s://%s/token" % (scheme, self.headers["Host"])
        self.error(401, "login", {
            "WWW-Authenticate": 'Bearer realm="%s",service="test",scope="repository:x:%s"' % (
                realm, "pull,push" if writes else "pull")})
        return False

    def do_GET(self):
        if self.path == "/_log":
            return self.reply(200, json.dumps(log).encode())
        self.note()
        if "delay" in faults:
            time.sleep(faults["delay"])
        url = urllib.parse.urlparse(self.path)
        if url.path == "/token" and faults.get("hang"):
            time.sleep(1000)
        if url.path == "/token" and faults.get("endless") == "token":
            return self.endless(200)
        if url.path == "/token":
            return self.give_token() if self.basic() else self.error(401, "no")
        if not self.allowed():
            return None
        parts = url.path.split("/")
        if len(parts) < 5 or parts[1] != "v2":
            return self.error(404, "no such thing")
        if parts[-2] == "manifests":
            return self.manifest(parts[-1])
        if parts[-2] == "blobs":
            return self.blob(parts[-1])
        return self.error(404, "no such thing")

    def manifest(self, what):
        if faults.get("endless") == "error":
            return self.endless(404)
        digest, kind = (what, None) if ":" in what else find(what)
        if digest in sent:
            return self.reply(200, sent[digest], {"Content-Type": OCI_MANIFEST})
        if not digest or not os.path.exists(blob_path(digest)):
            return self.error(404, "manifest unknown")
        body = open(blob_path(digest), "rb").read()
        if faults.get("lie_manifest"):
            body += b" "
        if "config_size" in faults:
            document = json.loads(body)
            document["config"]["size"] = faults["config_size"]
            body = json.dumps(document).encode()
        kind = kind or json.loads(body).get("mediaType") or OCI_MANIFEST
        return self.reply(200, body, {"Content-Type": kind})

    def blob(self, digest):
        if digest in sent:
            return self.reply(200, sent[digest])
        path = blob_path(digest)
        if not os.path.exists(path):
            return self.error(404, "blob unknown")
        if "redirect" in faults:
            return self.reply(307, b"", {"Location": faults["redirect"] + self.path})
        small = os.path.getsize(path) < 16384  # documents are left alone
        with lock:
            fail = None if small or not faults.get("fail") else faults["fail"].pop(0)
            cut = None if small or not faults.get("cut") else faults["cut"].pop(0)
        if fail:
            return self.error(fail, "told to", {"Retry-After": str(faults["retry_after"])}
                              if "retry_after" in faults else None)
        body = open(path, "rb").read()
        if not small and faults.get("corrupt"):
            body = body[:-1] + bytes([body[-1] ^ 1])
        if not small and faults.get("longer"):
            body += b"x"
        start, total, want = 0, len(body), self.headers.get("Range")
        if want and not faults.get("no_range"):
            start = int(want.split("=")[1].split("-")[0])
        if faults.get("bad_range") and start:
            start -= 1
        data = body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, total - 1, total))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if cut is None or cut >= len(data):
            self.wfile.write(data)
        else:
            self.wfile.write(data[:cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that go away are part of the tests


server = Server(("127.0.0.1", 0), Handler)
scheme = "http"
if "--tls" in sys.argv:
    i = sys.argv.index("--tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[i + 1], sys.argv[i + 2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https"
print("port", server.server_address[1], flush=True)
server.serve_forever()
