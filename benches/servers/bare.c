/*
 * The upper limit for a single connection: a null filter with the fewest system calls that a filter can make, one read
 * and one write for an exchange. Threads accept for themselves and are kept; one is added whenever none is left to accept.
 * It has no timeouts, no signals, no errors, and parks nothing: no library could be as bare.
 *
 * bare SPEC [h][n][t]    as null-filter; t: with a receive timeout, which is what the kernel takes for it alone
 */
#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <stdbool.h>

static int listener;
static bool timed;

/* Accepts connections and serves each to its end. */
static void *
serve(void *unused)
{
	unsigned char *in = buffer(), *out = buffer();

	for (;;) {
		int peer = accept_for_itself(listener, serve);
		if (peer < 0)
			continue;
		if (timed)
			limit_receive(peer);
		size_t filled = 0;
		for (;;) {
			size_t replies = 0;
			ssize_t got = recv(peer, in + filled, BUFFER - filled, 0);
			if (got < 0 && timed && errno == EAGAIN)
				continue;
			if (got <= 0)
				break;
			filled += (size_t)got;
			if (!answer(in, &filled, out, &replies))
				break;
			if (replies > 0 && send(peer, out, replies, MSG_NOSIGNAL) < 0)
				break;
		}
		close(peer);
	}
	return unused;
}

/* Listens, and serves until it is killed. */
int
main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: bare SPEC [h][n][t]\n");
		return 2;
	}
	choose(argc > 2 ? argv[2] : "");
	timed = argc > 2 && strchr(argv[2], 't') != NULL;
	listener = listen_at(argv[1]);
	serve(NULL);
	return 0;
}
