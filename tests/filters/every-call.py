"""A filter on pymilter that uses every call of its API, in the callback where it works and in one where it must
fail, and prints each result. Listens at the unix socket named by its first argument. What it does depends on the
mail: see `envrcpt` and `eom`."""

import sys
import threading

import Milter
import milter


def show(name, *values):
    """One line of the log."""
    print(name, *map(repr, values), flush=True)


def attempt(name, call, *arguments):
    """Makes a call and prints what came of it."""
    try:
        show(name, call(*arguments))
    except (milter.error, Milter.DisabledAction) as error:
        show(name, type(error).__name__, str(error))


class EveryCall(Milter.Base):
    """One connection."""

    def negotiate(self, options):
        show("offered", [hex(option & 0xFFFFFFFF) for option in options])
        for stage, macros in (
            (Milter.M_CONNECT, ("j", "{daemon_name}")),
            (Milter.M_HELO, ("{tls_version}",)),
            (Milter.M_ENVFROM, ("i", "{mail_addr}")),
            (Milter.M_ENVRCPT, ("{rcpt_addr}", "{rcpt_mailer}")),
            (Milter.M_DATA, ("i",)),
            (Milter.M_EOH, ("i",)),
            (Milter.M_EOM, ("i", "{msg_id}")),
        ):
            # Past pymilter's own method of this name, which fails under Python 3.
            attempt("setsymlist", self._ctx.setsymlist, stage, " ".join(macros))
        attempt("setsymlist again", self._ctx.setsymlist, Milter.M_EOM, "i")
        result = super().negotiate(options)
        show("negotiated", result, [hex(option & 0xFFFFFFFF) for option in options])
        return result

    def connect(self, hostname, family, hostaddr):
        show("connect", hostname, family, hostaddr)
        for macro in ("j", "{j}", "daemon_name", "{daemon_name}", "nothing"):
            show("getsymval", macro, self.getsymval(macro))
        attempt("addheader too early", self.addheader, "X-Early", "never")
        attempt("progress too early", self.progress)
        return Milter.CONTINUE

    def hello(self, hostname):
        show("hello", hostname)
        return Milter.CONTINUE

    def envfrom(self, sender, *parameters):
        show("envfrom", sender, parameters)
        return Milter.CONTINUE

    def envrcpt(self, recipient, *parameters):
        show("envrcpt", recipient, parameters)
        self.stop = recipient == "<stop@example.com>"
        if self.stop:
            return Milter.DISCARD
        if recipient == "<raise@example.com>":
            raise ValueError("the exception policy decides")
        if recipient == "<lines@example.com>":
            self.setreply("550", "5.7.1", *(f"line {number}" for number in range(1, 33)))
            return Milter.REJECT
        if recipient == "<wait@example.com>":
            self.setreply("450", "4.7.1", "come back later")
            return Milter.TEMPFAIL
        if recipient == "<wrong@example.com>":
            attempt("setreply 250", self.setreply, "250", "2.0.0", "never")
            attempt("setreply bad code", self.setreply, "550", "5.x.1", "never")
            attempt("setreply new line", self.setreply, "550", "5.7.1", "two\r\nlines")
            return Milter.REJECT
        return Milter.CONTINUE

    def data(self):
        show("data", self.getsymval("i"))
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, name, value):
        show("header", name, value)
        return Milter.CONTINUE

    @Milter.nocallback
    def eoh(self):
        show("eoh, which was declined")
        return Milter.CONTINUE

    def body(self, chunk):
        show("body", chunk)
        return Milter.SKIP

    def unknown(self, command):
        show("unknown", command)
        return Milter.CONTINUE

    def eom(self):
        show("eom")
        helper = threading.Thread(target=attempt, args=("progress from a thread", self.progress))
        helper.start()
        helper.join()
        attempt("progress", self.progress)
        attempt("addheader", self.addheader, "X-Added", "at the end")
        attempt("addheader, folded", self.addheader, "X-Folded", "one\n\ttwo")
        attempt("insheader", self.addheader, "X-Inserted", "at the top", 0)
        attempt("chgheader", self.chgheader, "Subject", 1, "Changed")
        attempt("chgheader, delete", self.chgheader, "MIME-Version", 1, "")
        attempt("chgheader, bad index", self.chgheader, "Subject", -1, "never")
        attempt("chgfrom", self.chgfrom, "<bounces@example.com>")
        attempt("chgfrom with parameters", self.chgfrom, "<bounces@example.com>", "RET=HDRS")
        attempt("addrcpt", self.addrcpt, "<archive@example.com>")
        attempt("addrcpt with parameters", self.addrcpt, "<notify@example.com>", "NOTIFY=NEVER")
        attempt("delrcpt", self.delrcpt, "<bob@example.com>")
        attempt("replacebody", self.replacebody, b"A new body.\r\n")
        attempt("replacebody, long", self.replacebody, b"0123456789012345678901234567890\r\n" * 3000)
        attempt("quarantine", self.quarantine, "held for a look")
        attempt("quarantine, no reason", self.quarantine, "")
        return Milter.ACCEPT

    def abort(self):
        show("abort")
        return Milter.CONTINUE

    def close(self):
        show("close", milter.getdiag()[0])
        if self.stop:
            show("stop")
            milter.stop()
        return Milter.CONTINUE


def main():
    """Sets the library up call by call and runs it until SIGTERM."""
    show("getversion", milter.getversion())
    attempt("setconn, nothing", milter.setconn, "")
    attempt("setbacklog, bad", milter.setbacklog, 0)
    attempt("setbacklog", milter.setbacklog, 20)
    attempt("setdbg", milter.setdbg, 0)
    attempt("set_exception_policy", milter.set_exception_policy, Milter.TEMPFAIL)
    Milter.factory = EveryCall
    Milter.set_flags(Milter.CURR_ACTS)
    Milter.runmilter("every-call", sys.argv[1], timeout=300)
    show("main has returned")


main()
