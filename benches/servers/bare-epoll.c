/*
 * The upper limit with many busy connections: one thread, level-triggered epoll, events taken in batches. An
 * exchange costs one read and one write, and a share of the epoll_wait that reported the whole batch.
 * It has no timeouts, no signals, no errors, and one callback that blocks would hold everybody up: no library
 * could be as bare.
 *
 * bare-epoll SPEC [h][n]    as null-filter
 */
#define _GNU_SOURCE
#include "wire.h"

#include <sys/epoll.h>

/* Events taken at one go. */
#define BATCH 512

/* A connection, and what it has sent of a frame that is not complete yet. */
struct peer {
	int socket;
	size_t held;
	unsigned char *part;
};

/* All connections are served with these two, one after the other. */
static unsigned char *in, out[BUFFER];

/* Closes the connection, which takes it out of the epoll set. */
static void
drop(struct peer *peer)
{
	close(peer->socket);
	free(peer->part);
	free(peer);
}

/* Reads once and answers what is complete. */
static void
serve(struct peer *peer)
{
	size_t filled = peer->held, replies = 0;

	if (filled > 0)
		memcpy(in, peer->part, filled);
	ssize_t got = recv(peer->socket, in + filled, BUFFER - filled, 0);
	if (got <= 0) {
		drop(peer);
		return;
	}
	filled += (size_t)got;
	if (!answer(in, &filled, out, &replies) ||
	    (replies > 0 && send(peer->socket, out, replies, MSG_NOSIGNAL) < 0)) {
		drop(peer);
		return;
	}
	peer->held = filled;
	if (filled > 0) {
		if (peer->part == NULL)
			peer->part = malloc(BUFFER);
		memcpy(peer->part, in, filled);
	}
}

/* Accepts one connection. */
static void
welcome(int poller, int listener)
{
	int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (socket < 0)
		return;
	struct peer *peer = calloc(1, sizeof *peer);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = peer };
	peer->socket = socket;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event) != 0)
		drop(peer);
}

/* Listens, and serves until it is killed. */
int
main(int argc, char **argv)
{
	static struct epoll_event events[BATCH];

	if (argc < 2) {
		fprintf(stderr, "usage: bare-epoll SPEC [h][n]\n");
		return 2;
	}
	choose(argc > 2 ? argv[2] : "");
	in = buffer();
	int listener = listen_at(argv[1]);
	int poller = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) != 0) {
		perror("epoll_ctl");
		return 1;
	}
	for (;;) {
		int ready = epoll_wait(poller, events, BATCH, -1);
		for (int i = 0; i < ready; i++) {
			if (events[i].data.ptr == NULL)
				welcome(poller, listener);
			else
				serve(events[i].data.ptr);
		}
	}
}
