#!/usr/bin/python3
"""The null filter on pymilter: all callbacks, one header added or header replies switched off on request,
a sender <sleep-50@...> takes 50 ms.

pymilter.py SPEC [h][n], as benches/servers/null-filter.c.
"""

import sys
import time

import Milter

SPEC = sys.argv[1]
LETTERS = sys.argv[2] if len(sys.argv) > 2 else ""


class NullFilter(Milter.Base):
    """Goes on at every step."""

    def connect(self, name, family, address):
        return Milter.CONTINUE

    def hello(self, name):
        return Milter.CONTINUE

    def envfrom(self, sender, *arguments):
        if sender.startswith("<sleep-"):
            time.sleep(int(sender[7:].partition("@")[0]) / 1000)
        return Milter.CONTINUE

    def envrcpt(self, recipient, *arguments):
        return Milter.CONTINUE

    def data(self):
        return Milter.CONTINUE

    def header(self, name, value):
        return Milter.CONTINUE

    if "n" in LETTERS:
        header = Milter.noreply(header)

    def eoh(self):
        return Milter.CONTINUE

    def body(self, chunk):
        return Milter.CONTINUE

    def eom(self):
        if "h" in LETTERS:
            self.addheader("X-Null-Filter", "passed")
        return Milter.CONTINUE

    def abort(self):
        return Milter.CONTINUE

    def close(self):
        return Milter.CONTINUE


Milter.factory = NullFilter
Milter.set_flags(Milter.ADDHDRS)
Milter.runmilter("null-filter", SPEC, 7210)
