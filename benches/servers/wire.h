/*
 * What the hand-written servers share: the listening socket, buffers, and a null filter's answers to whatever
 * frames a buffer holds. It keeps no state beyond one connection's bytes and checks nothing that a correct
 * MTA would not get wrong: it is a yardstick, no library.
 */
#ifndef WIRE_H
#define WIRE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A whole largest frame: length, command, 64 KiB less one of payload. */
#define BUFFER (4 + 1 + 65535)

/*
 * Where a receive buffer begins in its first page. A unix socket takes a whole largest frame in one write as two
 * parts, and holds most of the second from the start of a page on. Its place in the frame is 5 bytes behind a multiple
 * of 4096. On some processors (AMD's Zen 4), `rep movsb` takes 15 times as long when the target lies 1 to 15 bytes
 * further in its page than the source, which makes receiving the frame 2.5 times as expensive: that would be so with a
 * buffer that begins with a page. The yardstick must not depend on where malloc puts it.
 */
#define PLACE 256

/* Whether to add a header, and whether to switch header replies off. */
static int adds_header, silent_headers;

/* Reads the letters that select what the filter does. */
static inline void
choose(const char *letters)
{
	adds_header = strchr(letters, 'h') != NULL;
	silent_headers = strchr(letters, 'n') != NULL;
}

/* Memory for one frame and a byte behind it, at PLACE in its page. */
static unsigned char *
buffer(void)
{
	unsigned char *pages;

	if (posix_memalign((void **)&pages, 4096, PLACE + BUFFER + 1) != 0) {
		perror("memory");
		exit(1);
	}
	return pages + PLACE;
}

/* What the filter does at MAIL: a sender <sleep-50@...> makes it wait for 50 ms. */
static inline void
think(const char *sender)
{
	struct timespec rest;
	int milliseconds;

	if (strncmp(sender, "<sleep-", 7) != 0)
		return;
	milliseconds = atoi(sender + 7);
	rest.tv_sec = milliseconds / 1000;
	rest.tv_nsec = milliseconds % 1000 * 1000000L;
	nanosleep(&rest, NULL);
}

/* Stores a number in the order of the wire. */
static void
put32(unsigned char *at, uint32_t value)
{
	value = htonl(value);
	memcpy(at, &value, 4);
}

/* Fetches a number in the order of the wire. */
static uint32_t
get32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, 4);
	return ntohl(value);
}

/*
 * Answers every whole frame in `in`, moves the rest to its front, and appends the replies to `out`.
 * Returns 0 at QUIT.
 */
static inline int
answer(unsigned char *in, size_t *filled, unsigned char *out, size_t *replies)
{
	static const unsigned char added[] = "\0\0\0\026hX-Null-Filter\0passed";
	size_t at = 0, length;

	while (*filled - at >= 5 && *filled - at >= 4 + (length = get32(in + at))) {
		unsigned char command = in[at + 4];

		at += 4 + length;
		if (command == 'Q')
			return 0;
		if (command == 'D' || command == 'A' || (command == 'L' && silent_headers))
			continue;
		if (command == 'O') {
			put32(out + *replies, 13);
			out[*replies + 4] = 'O';
			put32(out + *replies + 5, 6);
			put32(out + *replies + 9, 1);
			put32(out + *replies + 13, silent_headers ? 0x80 : 0);
			*replies += 17;
			continue;
		}
		if (command == 'M')
			think((const char *)in + at - length + 1);
		if (command == 'E' && adds_header) {
			memcpy(out + *replies, added, sizeof added);
			*replies += sizeof added;
		}
		put32(out + *replies, 1);
		out[*replies + 4] = 'c';
		*replies += 5;
	}
	if (at > 0 && *filled > at)
		memmove(in, in + at, *filled - at);
	*filled -= at;
	return 1;
}

/* Opens the listening socket that `spec` names: unix:PATH or inet:PORT@ADDRESS. */
static int
listen_at(const char *spec)
{
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	struct sockaddr_in inet = { .sin_family = AF_INET };
	struct sockaddr *address;
	socklen_t length;
	int one = 1, listener;

	if (strncmp(spec, "unix:", 5) == 0) {
		snprintf(path.sun_path, sizeof path.sun_path, "%s", spec + 5);
		address = (struct sockaddr *)&path;
		length = sizeof path;
	} else {
		const char *host = strchr(spec, '@');

		inet.sin_port = htons((uint16_t)atoi(spec + 5));
		inet_pton(AF_INET, host == NULL ? "127.0.0.1" : host + 1, &inet.sin_addr);
		address = (struct sockaddr *)&inet;
		length = sizeof inet;
	}
	listener = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (address->sa_family == AF_INET) {
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	}
	if (bind(listener, address, length) != 0 || listen(listener, 1024) != 0) {
		perror(spec);
		exit(1);
	}
	return listener;
}

/* Accepts a connection; if no thread is left then that accepts, a new one will, in `serve`. Less than 0 if there is none. */
static inline int
accept_for_itself(int listener, void *(*serve)(void *))
{
	static atomic_int accepting;
	pthread_t next;

	atomic_fetch_add(&accepting, 1);
	int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (atomic_fetch_sub(&accepting, 1) == 1 && pthread_create(&next, NULL, serve, NULL) == 0)
		pthread_detach(next);
	return peer;
}

/* Lets a receive wait for at most 100 ms: as long as the threads of libmilter-rs do. */
static inline void
limit_receive(int peer)
{
	struct timeval time = { .tv_usec = 100000 };

	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}

#endif
