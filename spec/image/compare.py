#!/usr/bin/env python3
"""compare.py A B: are two trees the same, entry by entry?

Type, mode, owner, time (seconds), content, link target, extended attributes but overlay's own, and which
names are one file. Times of folders of A that are younger than an hour are not compared: no layer says them.
Prints what differs and "N entries, M differ"."""
import hashlib
import os
import stat
import sys
import time


def scan(top):
    top = os.fsencode(top)
    entries, links = {}, {}
    for folder, folders, files in os.walk(top):
        for name in ([b""] if folder == top else []) + folders + files:
            path = os.path.join(folder, name) if name else folder
            st = os.lstat(path)
            rel = os.path.relpath(path, top)
            e = [stat.filemode(st.st_mode), st.st_uid, st.st_gid, int(st.st_mtime)]
            if stat.S_ISLNK(st.st_mode):
                e.append(os.readlink(path))
            else:
                e.append(sorted((x, os.getxattr(path, x)) for x in os.listxattr(path)
                                if not x.startswith("trusted.overlay")))
            if stat.S_ISREG(st.st_mode):
                e += [st.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
                if st.st_nlink > 1:
                    links.setdefault((st.st_dev, st.st_ino), []).append(rel)
            entries[rel] = e
    return entries, sorted(sorted(v) for v in links.values())


(a, la), (b, lb) = scan(sys.argv[1]), scan(sys.argv[2])
differ = 0
for k in sorted(set(a) | set(b)):
    if k in a and k in b and a[k][0][0] == "d" and a[k][3] > time.time() - 3600:
        b[k][3] = a[k][3]
    if a.get(k) != b.get(k):
        differ += 1
        print(k, a.get(k), b.get(k))
if la != lb:
    differ += 1
    print("hard links", la, lb)
print(len(a), "entries,", differ, "differ")
sys.exit(differ > 0)
