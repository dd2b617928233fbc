"""A private network with a name server: a network of its own that has nothing but the loopback interface, and
there, on port 53, a server for the zone file named by the first argument. The processes that join it (nsenter)
find it through their own /etc/resolv.conf. Answers only what the zone holds, asks nobody else, and creates the
file `ready` in the directory named by the second argument when it listens."""

import pathlib
import socket
import subprocess
import sys

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


def read_zone(path):
    """Lines of `name type data` as {(name, type): [data]}."""
    zone = {}
    for line in pathlib.Path(path).read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind, data = line.split(None, 2)
            key = dns.name.from_text(name), dns.rdatatype.from_text(kind)
            zone.setdefault(key, []).append(data)
    return zone


def answer(zone, query):
    """The response to one query."""
    response = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    data = zone.get((question.name, question.rdtype))
    if data:
        response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", question.rdtype, data))
    elif not any(name == question.name for name, _ in zone):
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response.to_wire(max_size=65535)


def main():
    """Sets up the network, then serves until it is killed."""
    zone = read_zone(sys.argv[1])
    directory = pathlib.Path(sys.argv[2])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\noptions attempts:1\n")
    subprocess.run(["mount", "--bind", resolv_conf, "/etc/resolv.conf"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    (directory / "ready").touch()
    while True:
        packet, peer = server.recvfrom(4096)
        server.sendto(answer(zone, dns.message.from_wire(packet)), peer)


main()
