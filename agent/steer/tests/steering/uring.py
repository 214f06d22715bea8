"""Connects a TCP socket by io_uring, and prints what is read from it or the error's number.

usage: uring.py ADDRESS PORT inline|worker
"""

import ctypes
import mmap
import socket
import struct
import sys

SETUP, ENTER = 425, 426
CONNECT, ASYNC, GETEVENTS = 16, 16, 1
RING, ENTRIES = 0, 0x10000000

libc = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(SETUP, 4, params)
if ring < 0:
    sys.exit(f"no io_uring: {ctypes.get_errno()}")
words = struct.unpack("30I", params.raw)
sq, cq = words[10:20], words[20:30]
rings = mmap.mmap(ring, 4096, offset=RING)
entries = mmap.mmap(ring, 4096, offset=ENTRIES)

family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM)
port = int(sys.argv[2])
if family == socket.AF_INET:
    address = struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_pton(family, sys.argv[1]) + bytes(8)
else:
    packed = socket.inet_pton(family, sys.argv[1])
    address = struct.pack("=H", family) + struct.pack(">HI", port, 0) + packed + bytes(4)
kept = ctypes.create_string_buffer(address, len(address))
flags = ASYNC if sys.argv[3] == "worker" else 0
# opcode, flags, ioprio, fd, off (the address's length), addr
entries[0:32] = struct.pack("=BBHiQQII", CONNECT, flags, 0, client.fileno(), len(address), ctypes.addressof(kept), 0, 0)
entries[32:64] = bytes(32)
head, tail, _, _, _, _, array = sq[:7]
rings[array : array + 4] = struct.pack("=I", 0)
rings[tail : tail + 4] = struct.pack("=I", 1)
if libc.syscall(ENTER, ring, 1, 1, GETEVENTS, None, 0) < 0:
    sys.exit(f"io_uring_enter: {ctypes.get_errno()}")
completions = cq[5]
_, result = struct.unpack("=Qi", rings[completions : completions + 12])
if result < 0:
    print(f"err={-result}")
else:
    print(client.makefile().readline().strip())
