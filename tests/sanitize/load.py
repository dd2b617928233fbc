#!/usr/bin/python3
"""Plays many sessions at once to the filter at a unix socket: load.py SOCKET SECONDS SEED [HELO]

All sessions say one command, then all hear their answers, so that the filter has to serve many at once. Now and then
they all fall silent until they are parked, some leave without a word, and some send what is no command. Ends when the
filter refuses connections, or after the time, and fails if it has heard no answer. With a HELO name it says only that,
in one session."""

import random
import socket
import struct
import sys
import time

path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
dice = random.Random(seed)
OFFER = struct.pack(">III", 6, 0x1FF, 0x1FFFFF)


def frame(kind, payload=b""):
    return struct.pack(">I", len(payload) + 1) + kind + payload


def macros(kind):
    return frame(b"D", kind + b"j\0mx.example.org\0i\0" + str(dice.random()).encode() + b"\0")


def transaction():
    """The commands of one message; each has one answer, or several frames whose last is the answer."""
    yield macros(b"M") + frame(b"M", b"<a@example.com>\0SIZE=5\0")
    if dice.random() < 0.2:
        yield frame(b"R", b"<nobody>\0")
    yield macros(b"R") + frame(b"R", b"<b@example.org>\0")
    yield frame(b"T")
    for name in [b"Subject", b"X-A"]:
        yield frame(b"L", name + b"\0value\0")
    yield frame(b"N")
    if dice.random() < 0.1:
        yield None
    yield frame(b"B", b"text\r\n" * dice.choice([1, 100, 5000]))
    yield macros(b"E") + frame(b"E")


def session():
    yield frame(b"O", OFFER)
    yield macros(b"C") + frame(b"C", b"client\x004\0\x19192.0.2.1\0")
    yield frame(b"H", dice.choice([b"client\0"] * 9 + [b"slow\0"]))
    for _ in range(dice.randrange(4)):
        yield from transaction()
    last = dice.random()
    if last < 0.1:
        yield frame(dice.choice([b"Z", b"H"]), b"no such thing")


def hear(connection):
    """Waits for an answer; False when the filter has hung up."""
    while True:
        head = connection.recv(5, socket.MSG_WAITALL)
        if len(head) < 5:
            return False
        length = struct.unpack(">I", head[:4])[0] - 1
        if length and len(connection.recv(length, socket.MSG_WAITALL)) < length:
            return False
        if head[4:] not in (b"h", b"i", b"m", b"+", b"b", b"p"):
            return True


if len(sys.argv) > 4:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(frame(b"O", OFFER) + frame(b"C", b"client\0U") + frame(b"H", sys.argv[4].encode() + b"\0"))
    while hear(connection):
        pass
    sys.exit()

end = time.monotonic() + seconds
open_sessions, played, spoken = [], 0, 0
refused = False
while time.monotonic() < end and not (refused and not open_sessions):
    while len(open_sessions) < 40 and not refused:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        try:
            connection.connect(path)
        except OSError:
            refused = True
            break
        open_sessions.append((connection, session()))
        played += 1
    if dice.random() < 0.02:
        time.sleep(0.15)
    waiting = []
    for connection, script in open_sessions:
        said = next(script, b"")
        try:
            if said:
                connection.sendall(said)
                waiting.append((connection, script))
                continue
            if said == b"":
                connection.sendall(frame(b"Q"))
        except OSError:
            pass
        connection.close()
    open_sessions = []
    for connection, script in waiting:
        try:
            if hear(connection):
                open_sessions.append((connection, script))
                if not spoken:
                    print("the first answer", flush=True)
                spoken += 1
                continue
        except ConnectionError:
            pass
        connection.close()
print(f"{played} sessions, {spoken} answers")
sys.exit(spoken == 0)
