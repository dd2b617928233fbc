/*
 * The plain design: a fresh thread for each connection, poll before every read and every write. It is what the
 * latency of many active connections is compared with; beyond that it is as bare as bare.c.
 *
 * plain SPEC [h][n]    as null-filter
 */
#define _GNU_SOURCE
#include "wire.h"

#include <poll.h>
#include <pthread.h>

/* How long a peer may be silent, in milliseconds: the API's default. */
#define PATIENCE (7210 * 1000)

/* Waits until the socket is ready for `event`. */
static int
ready(int peer, short event)
{
	struct pollfd wait = { .fd = peer, .events = event };

	return poll(&wait, 1, PATIENCE) == 1;
}

/* Serves one connection to its end. */
static void *
serve(void *connection)
{
	int peer = (int)(intptr_t)connection;
	unsigned char *in = buffer(), *out = malloc(BUFFER);
	size_t filled = 0;

	while (ready(peer, POLLIN)) {
		size_t replies = 0;
		ssize_t got = recv(peer, in + filled, BUFFER - filled, 0);
		if (got <= 0)
			break;
		filled += (size_t)got;
		if (!answer(in, &filled, out, &replies))
			break;
		if (replies > 0 && (!ready(peer, POLLOUT) || send(peer, out, replies, MSG_NOSIGNAL) < 0))
			break;
	}
	close(peer);
	free(in - PLACE);
	free(out);
	return NULL;
}

/* Listens, and gives each connection a thread until it is killed. */
int
main(int argc, char **argv)
{
	pthread_t thread;

	if (argc < 2) {
		fprintf(stderr, "usage: plain SPEC [h][n]\n");
		return 2;
	}
	choose(argc > 2 ? argv[2] : "");
	int listener = listen_at(argv[1]);
	for (;;) {
		int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (peer < 0)
			continue;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer) == 0)
			pthread_detach(thread);
		else
			close(peer);
	}
}
