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
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/time.h>

static int listener;
static atomic_int accepting;
static bool timed;

/* Accepts connections and serves each to its end. */
static void *
serve(void *unused)
{
	unsigned char *in = buffer(), *out = buffer();
	pthread_t next;

	for (;;) {
		atomic_fetch_add(&accepting, 1);
		int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (atomic_fetch_sub(&accepting, 1) == 1 && pthread_create(&next, NULL, serve, NULL) == 0)
			pthread_detach(next);
		if (peer < 0)
			continue;
		if (timed) {
			struct timeval time = {.tv_usec = 100000};
			setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
		}
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
