"""A filter on pymilter that takes its time at the end of each message: as many seconds as its second argument says.
Listens at the socket named by its first argument."""

import sys
import time

import Milter


class Slow(Milter.Base):
    """One connection."""

    def eom(self):
        time.sleep(float(sys.argv[2]))
        self.addheader("X-Slow", "yes")
        return Milter.ACCEPT


Milter.factory = Slow
Milter.set_flags(Milter.ADDHDRS)
Milter.runmilter("slow", sys.argv[1], timeout=300)
