"""Verifies the DKIM signature of the message on standard input, with dkimpy. The one argument is the TXT record of the
signer's public key; no DNS server is asked. Exits with 0 when the signature is valid, with 1 when it is not."""

import sys

import dkim

message, record = sys.stdin.buffer.read(), sys.argv[1].encode()
sys.exit(0 if dkim.verify(message, dnsfunc=lambda name, timeout=5: record) else 1)
