#!/usr/bin/python3
"""no_io_uring.py COMMAND...: runs COMMAND (by exec) where io_uring answers EPERM, as container runtimes have it.

A seccomp filter of eight instructions; no library needed. It is checked on this very process before COMMAND starts, so a
test that passes under it did pass without io_uring.
"""
import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SYSCALLS = (425, 426, 427)  # io_uring_setup, _enter, _register: the same numbers on every architecture
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno.EPERM


def program():
    # struct seccomp_data: the call's number at 0, the architecture at 4.
    lines = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, AUDIT_ARCH), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 0)]
    for index, number in enumerate(SYSCALLS):
        lines.append((JUMP_EQUAL, len(SYSCALLS) - index, 0, number))
    lines += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
    return b"".join(struct.pack("HBBI", *line) for line in lines), len(lines)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    libc = ctypes.CDLL(None, use_errno=True)
    code, count = program()
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit(f"no_io_uring: no_new_privs: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(count, code)), 0, 0) != 0:
        sys.exit(f"no_io_uring: seccomp: {os.strerror(ctypes.get_errno())}")
    # With the filter the answer is EPERM whatever the arguments; without it EFAULT or EINVAL.
    if libc.syscall(SYSCALLS[0], 8, None) != -1 or ctypes.get_errno() != errno.EPERM:
        sys.exit("no_io_uring: the filter is not in force")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
