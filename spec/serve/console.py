#!/usr/bin/env python3
"""The page at /, clicked through in a real browser: console.py URL KEY OTHER_KEY SCREENSHOT."""
import json
import sys
import zlib

import requests

sys.path.insert(0, "spec/support")
from browser import Browser  # noqa: E402

url, key, other, path = sys.argv[1:5]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def post(op, body, who=key):
    r = requests.post(f"{url}/v1/marketplace/compute/sandbox/{op}", json=body, timeout=60,
                      headers={"Authorization": "Bearer " + who})
    assert r.status_code == 200, r.text
    return r.json()


def check(name, ok, what=""):
    print(f"ok {name}" if ok else f"failed {name}: {what}", flush=True)


def distinct_bytes(png):
    """How varied a screenshot is: one that shows nothing compresses to almost nothing."""
    at, data = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at:at + 4], "big")
        if png[at + 4:at + 8] == b"IDAT":
            data += png[at + 8:at + 8 + length]
        at += length + 12
    return len(zlib.decompress(data)) // 100, len(data)


first = post("create", {"timeout": 300, "tags": {"run": "42", "evil": HOSTILE}})["sandbox_id"]
second = post("create", {"timeout": 4000})["sandbox_id"]
post("create", {"timeout": 300}, other)
post("exec", {"sandbox_id": first, "command": "echo hello; echo oops >&2; exit 3"})
post("exec", {"sandbox_id": first, "command": ["printf", "%s", HOSTILE]})

with Browser() as b:
    b.go(url + "/")
    check("no_foreign_host", b.value(
        "performance.getEntriesByType('resource').every(r => r.name.startsWith(location.origin))"))
    b.click("#key")
    b.type("sk-wrong")
    b.press("Enter", 13, "\r")
    b.wait("document.body.innerText.includes('not known here')")
    check("wrong_key", b.value("document.getElementById('main').hidden"))
    b.trouble.clear()  # the 401 is told in the console, too
    b.click("#key")
    b.type(key)
    b.click("#enter button")
    b.wait(f"document.querySelector('[data-id=\"{first}\"]') !== null")
    text = b.value("document.getElementById('main').innerText")
    check("shows_sandboxes", first in text and second in text and "run=42" in text, text)
    check("shows_own_alone", b.value("document.querySelectorAll('[data-id]').length") == 2, text)
    check("hostile_text", HOSTILE in text and not b.value(
        "document.querySelectorAll('#main img, #main script').length"), text)
    row = b.value(f"document.querySelector('[data-id=\"{first}\"]').innerText")
    check("numbers", "\t2\t$0.012" in row and "CPU" in row
          and ("4 min" in row or "5 min 0 s" in row), row)
    check("key_in_memory_alone", b.value(
        "localStorage.length === 0 && sessionStorage.length === 0 && document.cookie === '' && "
        f"!location.href.includes('{key}') && !document.documentElement.outerHTML.includes('{key}')"
        " && document.getElementById('key').value === ''"))
    b.click(f'[data-id="{first}"] td')
    b.wait("document.querySelectorAll('#execs .exec').length === 2")
    execs = b.value("document.getElementById('execs').innerText")
    check("shows_execs", "exit 3" in execs and "hello" in execs and "oops" in execs
          and HOSTILE in execs, execs)
    b.wait("document.querySelectorAll('#plot rect[data-tier=CPU]').length > 0")
    check("plots_costs", "CPU $" in b.value("document.getElementById('legend').textContent"))
    spent = b.value("document.getElementById('spent').textContent")
    paid = requests.get(f"{url}/v1/costs?hours=24", timeout=10,
                        headers={"Authorization": "Bearer " + key}).json()["costs"]
    check("bill_is_right", spent == f"${sum(c['usd'] for c in paid):.3f}", spent)
    image = b.screenshot(path)
    raw, packed = distinct_bytes(image)
    check("screenshot", len(image) > 20000 and packed > raw // 100, f"{len(image)} bytes")
    b.click(f'[data-stop="{first}"]')
    b.wait("document.querySelector('.sure') !== null")
    check("asks_before", requests.get(f"{url}/v1/sandboxes/{first}", timeout=10, headers={
        "Authorization": "Bearer " + key}).json()["state"] == "started")
    b.click(f'[data-stop="{first}"]')
    b.wait(f"document.querySelector('[data-id=\"{first}\"]') === null")
    check("terminates", requests.get(f"{url}/v1/sandboxes/{first}", timeout=10, headers={
        "Authorization": "Bearer " + key}).json()["state"] == "terminated")
    b.click(f'[data-id="{second}"] td')
    b.wait("document.body.innerText.includes('No command has run here yet')")
    b.click("#leave")
    check("signs_out", b.value("document.querySelectorAll('[data-id]').length === 0 && "
                               "!document.getElementById('enter').hidden"))
    check("no_trouble", not b.trouble, json.dumps(b.trouble))
print("done")
