#!/usr/bin/env python3
"""Steps out of a sandbox, each under its name:  escapes.py FACTS

Prints "NAME done" or "NAME refused WHY" for each; spec/e2e/escape_spec.lua runs it in a sandbox, where every step
has to be refused, and as root in a throw-away mount namespace without any of the walls, where every step has to
work ("NAME absent WHY" where this machine's kernel does not have what it needs). So no step may do harm: files of
the kernel are only opened, and processes are touched that the spec has made for it.

FACTS is JSON: dir, a directory of the machine's that has the file "canary"; victim, a process of the machine's in
it that has it open as descriptor 9; socket, an abstract one that listens; shm, a key; free, whether nothing holds us.
"""
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
import tempfile
import time

FACTS = json.loads(sys.argv[1])
FREE, DIR, VICTIM = FACTS["free"], FACTS["dir"], FACTS["victim"]
# Whom to trace, limit and signal: the agent; without walls our own process of the machine.
TARGET = VICTIM if FREE else 1
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
NR = {name: number[0 if X86 else 1] for name, number in {
    "pivot_root": (155, 41), "add_key": (248, 217), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "init_module": (175, 105), "reboot": (169, 142), "clone": (56, 220),
    "capset": (126, 91), "kexec_load": (246, 104), "keyctl": (250, 219), "mount_setattr": (442, 442),
    "pidfd_getfd": (438, 438), "open_tree": (428, 428), "fsopen": (430, 430), "clone3": (435, 435),
    "io_uring_setup": (425, 425)}.items()}
STEPS, NO_SUCH = [], {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
BIND, REC, REMOUNT, RDONLY, NEWNS, NEWUSER, NEWNET, NEWPID = 4096, 16384, 32, 1, 0x20000, 0x10000000, 0x40000000, 0x20000000


class Absent(Exception):
    """What a step needs is not in this machine."""


def step(f):
    STEPS.append(f)
    return f


def ok(rc):
    """The result of a call of libc's; an OSError if it failed."""
    if rc < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return rc


def call(name, *args):
    return ok(LIBC.syscall(NR[name], *args))


def gets_past(f, *harmless):
    """Fails only for want of sense, not of permission: f is called in a way that does nothing."""
    try:
        f()
    except OSError as e:
        if e.errno not in harmless:
            raise
    return True


def mount(what, where, kind, flags, data=None):
    def c(text):
        return text.encode() if text is not None else None
    return ok(LIBC.mount(c(what), c(where), c(kind), flags, c(data)))


def folder():
    return tempfile.mkdtemp(dir="/tmp" if not FREE else DIR)


def processes():
    return [p for p in os.listdir("/proc") if p.isdigit()]


def can_open(path, flags=os.O_WRONLY):
    if FREE and not os.path.exists(path):
        raise Absent(path)
    os.close(os.open(path, flags | os.O_NONBLOCK))
    return True


def own_network():
    """Where nothing holds us, networks are tried in a namespace of our own."""
    if FREE:
        ok(LIBC.unshare(NEWNET))


# ---- mounts and roots ----

@step
def mount_a_file_system():
    return mount("x", folder(), "tmpfs", 0) == 0


@step
def bind_the_root():
    return mount("/", folder(), None, BIND | REC) == 0


@step
def remount_the_root_writable():
    return mount(None, "/", None, REMOUNT | BIND) == 0


@step
def unmount_what_covers_proc():
    return ok(LIBC.umount2(b"/proc", 2)) == 0


@step
def make_a_mount_by_fsopen():
    return call("fsopen", b"tmpfs", 0) >= 0


@step
def clone_a_tree_of_mounts():
    return call("open_tree", -100, b"/", 1) >= 0


@step
def change_a_mount_by_mount_setattr():
    return call("mount_setattr", -100, b"/", 0, struct.pack("=4Q", 0, RDONLY, 0, 0), 32) == 0


@step
def pivot_to_another_root():
    return gets_past(lambda: call("pivot_root", b"/", b"/"), errno.EINVAL, errno.EBUSY)


@step
def climb_out_of_a_chroot():
    jail, above = folder(), os.open("/", os.O_RDONLY)
    os.chroot(jail)
    os.fchdir(above)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return os.path.exists(DIR + "/canary")


@step
def open_by_a_guessed_handle():
    """The root of a file system has a number that can be guessed."""
    handle, mount_id = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136), ctypes.c_int()
    if FREE:
        ok(LIBC.name_to_handle_at(-100, b"/dev", handle, ctypes.byref(mount_id), 0))
    place = os.open("/dev", os.O_RDONLY)
    return ok(LIBC.open_by_handle_at(place, handle, os.O_RDONLY)) >= 0


@step
def find_a_namespace_by_guessing_its_number():
    """Linux 6.18 opens namespaces by number; that of the first network namespace is known."""
    for kind, inode in ((NEWUSER, 0xEFFFFFFD), (NEWPID, 0xEFFFFFFC), (0x04000000, 0xEFFFFFFE)):
        for number in range(1, 9):
            handle = ctypes.create_string_buffer(struct.pack("=IiQII", 16, 0xF1, number, kind, inode))
            if LIBC.open_by_handle_at(-10003, handle, os.O_RDONLY) >= 0:
                return True
    if FREE:
        raise Absent("this kernel does not open namespaces by number")
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# ---- what /proc leads to ----

@step
def go_through_the_root_of_a_process():
    return any(os.path.exists(f"/proc/{p}/root{DIR}/canary") for p in processes())


@step
def go_through_the_working_directory_of_a_process():
    return any(os.path.exists(f"/proc/{p}/cwd/canary") for p in processes())


@step
def open_a_descriptor_of_a_process():
    return any(os.path.isfile(f"/proc/{p}/fd/9") and open(f"/proc/{p}/fd/9").read() == "canary"
               for p in processes())


@step
def use_a_descriptor_that_was_left_open():
    """A directory, or a socket such as the agent's; without walls the spec leaves one."""
    own = os.open("/proc/self/fd", os.O_RDONLY)
    for fd in map(int, os.listdir(own)):
        try:
            kind = os.fstat(fd).st_mode & 0o170000
        except OSError:
            continue
        if fd != own and kind in (0o040000, 0o140000):
            return True
    return False


@step
def read_the_memory_of_process_1():
    with open(f"/proc/{TARGET}/maps") as f:
        start = int(f.read().split("-")[0], 16)
    with open(f"/proc/{TARGET}/mem", "rb") as f:
        f.seek(start)
        return len(f.read(16)) == 16


@step
def see_a_process_of_the_machine():
    return str(VICTIM) in processes() and b"canary" in open(f"/proc/{VICTIM}/cmdline", "rb").read()


# ---- namespaces ----

@step
def enter_a_namespace_of_the_machine():
    fd = os.open(f"/proc/{TARGET}/ns/net", os.O_RDONLY)
    return ok(LIBC.setns(fd, NEWNET)) == 0


@step
def enter_namespaces_by_a_pidfd():
    return ok(LIBC.setns(os.pidfd_open(TARGET), NEWNET)) == 0


@step
def make_a_user_namespace():
    return ok(LIBC.unshare(NEWUSER)) == 0


@step
def make_a_user_namespace_by_clone():
    pid = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[0] == pid


@step
def make_a_user_namespace_by_clone3():
    args = struct.pack("=11Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = call("clone3", args, len(args))
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[0] == pid


@step
def make_a_mount_namespace():
    return ok(LIBC.unshare(NEWNS)) == 0


@step
def make_a_network_namespace():
    return ok(LIBC.unshare(NEWNET)) == 0


# ---- privileges ----

def run_as_somebody(program, *args):
    """What a program prints that somebody without privileges starts."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(into, 1)
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)
        os.execv(program, (program,) + args)
    os.close(into)
    os.waitpid(pid, 0)
    with open(out) as f:
        return f.read()


def copy_of(program):
    path = folder()
    os.chmod(path, 0o755)
    path += "/copy"
    with open(program, "rb") as f, open(path, "wb") as g:
        g.write(f.read())
    os.chmod(path, 0o755)
    return path


@step
def become_root_by_a_set_uid_file():
    path = copy_of("/usr/bin/id")
    os.chmod(path, 0o4755)
    return run_as_somebody(path, "-u") == "0\n"


@step
def gain_capabilities_from_a_file():
    path = copy_of("/usr/bin/cat")
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 2, 0, 0, 0))
    return "CapEff:\t0000000000000002" in run_as_somebody(path, "/proc/self/status")


@step
def take_all_capabilities():
    head, want = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[1 << 21, 1 << 21, 0, 0, 0, 0])
    return call("capset", head, want) == 0  # CAP_SYS_ADMIN


# ---- devices and terminals ----

@step
def make_a_disk():
    os.mknod(folder() + "/disk", 0o060666, os.makedev(8, 0))
    return True


@step
def make_the_memory():
    os.mknod(folder() + "/mem", 0o020666, os.makedev(1, 1))
    return True


@step
def open_a_device_of_the_machine():
    for name in ("kmsg", "net/tun", "fuse", "kvm", "mem", "sda", "vda", "loop-control", "vhost-net"):
        try:
            return can_open("/dev/" + name, os.O_RDONLY)
        except (Absent, OSError) as e:
            why = e
    raise why


@step
def type_into_a_terminal():
    ours, theirs = os.openpty()
    os.setsid()
    fcntl.ioctl(theirs, 0x540E, 0)  # TIOCSCTTY
    fcntl.ioctl(theirs, 0x5412, b"x")  # TIOCSTI
    return ours >= 0


# ---- other processes ----

@step
def trace_process_1():
    ok(LIBC.ptrace(0x4206, TARGET, None, None))  # PTRACE_SEIZE; ends with us
    return True


@step
def copy_the_memory_of_process_1():
    local = ctypes.create_string_buffer(16)
    with open(f"/proc/{TARGET}/maps") as f:
        start = int(f.read().split("-")[0], 16)
    vec = struct.pack("=2Q", ctypes.addressof(local), 16), struct.pack("=2Q", start, 16)
    return ok(LIBC.process_vm_readv(TARGET, vec[0], 1, vec[1], 1, 0)) == 16


@step
def signal_a_process_of_the_machine():
    os.kill(VICTIM, signal.SIGURG)  # which does nothing
    return True


@step
def end_process_1():
    """By any signal. That one may be sent means nothing: the kernel drops them for process 1."""
    target = 1
    if FREE:
        target = os.fork()
        if target == 0:
            signal.pause()
    for number in range(1, 65):
        os.kill(target, number)
        signal.pidfd_send_signal(os.pidfd_open(target), number)
    time.sleep(0.05)
    return FREE and os.WIFSIGNALED(os.waitpid(target, 0)[1])


@step
def take_a_descriptor_of_process_1():
    return call("pidfd_getfd", os.pidfd_open(TARGET), 9 if FREE else 0, 0) >= 0


@step
def limit_process_1():
    resource.prlimit(TARGET, resource.RLIMIT_NOFILE, (64, 64))
    return True


@step
def starve_process_1():
    os.setpriority(os.PRIO_PROCESS, TARGET, 19)
    return True


@step
def pin_process_1():
    os.sched_setaffinity(TARGET, {min(os.sched_getaffinity(0))})
    return True


@step
def let_process_1_be_killed_first():
    with open(f"/proc/{TARGET}/oom_score_adj", "w") as f:
        f.write("1000")
    return True


# ---- interfaces of the kernel ----

@step
def keep_a_key():
    return call("add_key", b"user", b"escape", b"x", 1, -2) > 0


@step
def read_a_keyring():
    return call("keyctl", 0, -5, 1) > 0  # that of the session, which processes share


@step
def load_a_program_into_the_kernel():
    attr = struct.pack("=4I", 2, 4, 8, 1) + bytes(56)  # a map
    return call("bpf", 0, attr, len(attr)) >= 0


@step
def watch_the_machine_by_perf():
    attr = struct.pack("=2IQ", 1, 112, 0) + bytes(96)  # the processor's clock, of all processes
    return call("perf_event_open", attr, -1, 0, -1, 0) >= 0


@step
def use_io_uring():
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120)) >= 0


@step
def hold_faults_by_userfaultfd():
    return call("userfaultfd", 0) >= 0


@step
def load_a_module():
    return gets_past(lambda: call("init_module", None, 0, b""), errno.ENOEXEC, errno.EFAULT)


@step
def restart_the_machine():
    return gets_past(lambda: call("reboot", 0, 0, 0, 0), errno.EINVAL)


@step
def swap_to_a_file():
    return gets_past(lambda: ok(LIBC.swapon(b"/no/such/file", 0)), errno.ENOENT)


@step
def read_the_log_of_the_kernel():
    return ok(LIBC.klogctl(3, ctypes.create_string_buffer(64), 64)) >= 0


@step
def set_the_clock():
    return gets_past(lambda: ok(LIBC.settimeofday(None, struct.pack("=2i", 100000, 0))), errno.EINVAL)


@step
def set_core_pattern():
    return can_open("/proc/sys/kernel/core_pattern")


@step
def set_the_path_of_modprobe():
    return can_open("/proc/sys/kernel/modprobe")


def can_open_any_below(top):
    for place, _, names in os.walk(top):
        for name in names:
            try:
                return can_open(f"{place}/{name}")
            except (Absent, OSError):
                pass
    return False


@step
def turn_any_knob():
    return can_open_any_below("/proc/sys")


@step
def press_sysrq():
    return can_open("/proc/sysrq-trigger")


@step
def write_to_sys():
    return can_open_any_below("/sys/kernel")


# ---- control groups ----

@step
def mount_control_groups():
    return mount("x", folder(), "cgroup2", 0) == 0


@step
def set_a_release_agent():
    where = folder()
    mount("x", where, "cgroup", 0, f"none,name=escape{os.getpid()}")
    return can_open(where + "/release_agent")


@step
def find_a_control_group():
    with open("/proc/self/mountinfo") as f:
        return any(" - cgroup" in line for line in f)


# ---- what processes share ----

@step
def connect_to_an_abstract_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect("\0" + FACTS["socket"])
    return True


@step
def attach_shared_memory():
    return ok(LIBC.shmget(FACTS["shm"], 0, 0)) >= 0


@step
def find_shared_memory_by_name():
    return can_open("/dev/shm/" + FACTS["socket"], os.O_RDONLY)


# ---- networks ----

@step
def make_a_network_device():
    own_network()
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    info = struct.pack("=HH", 9, 1) + b"dummy\0\0\0"
    body = link + struct.pack("=HH", 4 + len(info), 18) + info
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
    answer = s.recv(4096)
    ctypes.set_errno(-struct.unpack_from("=i", answer, 16)[0])
    return ok(-(ctypes.get_errno() != 0)) == 0


@step
def listen_to_the_kernel_by_netlink():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).fileno() >= 0  # audit


@step
def change_the_firewall_by_netlink():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).fileno() >= 0


@step
def open_a_raw_socket():
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno() >= 0


@step
def open_a_packet_socket():
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).fileno() >= 0


@step
def open_a_socket_to_the_hypervisor():
    return socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).fileno() >= 0


@step
def open_a_socket_of_the_crypto_interface():
    return socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).fileno() >= 0


def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@step
def route_by_source():
    """Loose source routing, through another machine."""
    udp().setsockopt(socket.IPPROTO_IP, 4, bytes([0x83, 7, 4, 10, 0, 0, 1, 0]))
    return True


@step
def speak_for_another_address():
    udp().setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
    return True


@step
def mark_packets():
    udp().setsockopt(socket.SOL_SOCKET, 36, 1)  # SO_MARK, by which machines route
    return True


@step
def set_a_neighbour_address():
    """ARP spoofing begins here."""
    own_network()
    arp = struct.pack("=H2x4s8xH14sI16s16s", 2, bytes([127, 0, 0, 9]), 1, b"\2" * 14, 6, b"\0" * 16, b"lo")
    return gets_past(lambda: fcntl.ioctl(udp(), 0x8955, arp), errno.EINVAL, errno.ENXIO, errno.ENETUNREACH)


@step
def take_the_network_down():
    own_network()
    fcntl.ioctl(udp(), 0x8914, struct.pack("=16sH14x", b"lo", 1))  # SIOCSIFFLAGS
    return True


def attempt(f):
    signal.alarm(10)
    try:
        if FREE:
            ok(LIBC.unshare(NEWNS))
        word = "done" if f() else "refused in effect"
    except Absent as e:
        word = f"absent {e}"
    except OSError as e:
        absent = FREE and e.errno in NO_SUCH
        word = f"{'absent' if absent else 'refused'} {errno.errorcode.get(e.errno, e)}"
    print(f.__name__, word, flush=True)
    os._exit(0)


for each in STEPS:
    child = os.fork()
    if child == 0:
        attempt(each)
    status = os.waitpid(child, 0)[1]
    if status != 0:
        print(each.__name__, "refused by status", status, flush=True)
