/*
 * The least that a library can do: a libmilter with which the null filter runs. It keeps what interface and protocol promise
 * to a filter, and nothing else: each frame is checked and has its place in the order of stages, strings end with NUL, macros
 * stay where they are, callbacks are called through the table, and a helper thread may send while a callback runs. A
 * connection has a thread and, because threads must not wait for ever, a timeout for each receive. It parks nothing, never
 * stops, logs nothing, has no limits, survives no lack of memory, and knows no function but those that the null filter calls.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <stdbool.h>

#include <libmilter/mfapi.h>

/* Where a session stands; what may come next is a set of bits of these. */
enum stage { START, NEGOTIATED, CONNECTED, GREETED, MAIL, RCPT, DATA, HEADER, HEADER_END, BODY, END };

#define BIT(stage) (1u << (stage))

/* The macros of a stage. */
struct macros {
	size_t length, room;
	char *bytes;
};

struct smfi_str {
	pthread_mutex_t sending;
	int peer;
	bool changes_allowed;
	unsigned char *out;
	size_t gathered;
	enum stage stage;
	unsigned long actions, steps;
	struct macros *macros;
};

static struct smfiDesc filter;
static const char *spec;
static int listener;
static atomic_bool stops;

/* From which stages a command may follow, by its byte; 0 for a byte that is no command. */
static const unsigned short follows[256] = {
	['O'] = BIT(START),
	['C'] = BIT(NEGOTIATED),
	['H'] = BIT(CONNECTED) | BIT(GREETED) | BIT(END),
	['M'] = BIT(GREETED) | BIT(END) | BIT(CONNECTED),
	['R'] = BIT(MAIL) | BIT(RCPT),
	['T'] = BIT(RCPT),
	['L'] = BIT(RCPT) | BIT(DATA) | BIT(HEADER),
	['N'] = BIT(RCPT) | BIT(DATA) | BIT(HEADER),
	['B'] = BIT(HEADER_END) | BIT(BODY),
	['E'] = BIT(HEADER_END) | BIT(BODY),
	['D'] = 0x7ff,
	['A'] = 0x7ff,
	['Q'] = 0x7ff,
};

/* The stage that a command leads to. */
static const unsigned char leads_to[256] = {
	['O'] = NEGOTIATED, ['C'] = CONNECTED, ['H'] = GREETED, ['M'] = MAIL, ['R'] = RCPT, ['T'] = DATA,
	['L'] = HEADER, ['N'] = HEADER_END, ['B'] = BODY, ['E'] = END, ['A'] = GREETED,
};

/* The stage of macros, by the byte that follows the D; 1 is the first. */
static const unsigned char macro_stage[256] = {
	['C'] = 1, ['H'] = 2, ['M'] = 3, ['R'] = 4, ['T'] = 5, ['N'] = 6, ['E'] = 7,
};

#define MACRO_STAGES 8

/* Forgets the macros of all stages behind one. */
static void
forget_macros(SMFICTX *ctx, unsigned stage)
{
	while (++stage < MACRO_STAGES)
		ctx->macros[stage].length = 0;
}

/* Replaces the macros of a stage. */
static void
define_macros(struct macros *macros, const unsigned char *data, size_t length)
{
	if (length > macros->room) {
		free(macros->bytes);
		macros->bytes = malloc(length);
		macros->room = length;
	}
	memcpy(macros->bytes, data, length);
	macros->length = length;
}

/* Appends a frame with this payload in up to two parts to what is to be sent. */
static void
gather(SMFICTX *ctx, unsigned char command, const void *one, size_t one_length, const void *two, size_t two_length)
{
	unsigned char *at = ctx->out + ctx->gathered;

	put32(at, (uint32_t)(1 + one_length + two_length));
	at[4] = command;
	memcpy(at + 5, one, one_length);
	memcpy(at + 5 + one_length, two, two_length);
	ctx->gathered += 5 + one_length + two_length;
}

/* Sends what has gathered, and a last frame without payload if there is one. */
static bool
answer_with(SMFICTX *ctx, unsigned char command)
{
	bool sent = true;

	pthread_mutex_lock(&ctx->sending);
	if (command != 0) {
		put32(ctx->out + ctx->gathered, 1);
		ctx->out[ctx->gathered + 4] = command;
		ctx->gathered += 5;
	}
	if (ctx->gathered > 0)
		sent = send(ctx->peer, ctx->out, ctx->gathered, MSG_NOSIGNAL) == (ssize_t)ctx->gathered;
	ctx->gathered = 0;
	pthread_mutex_unlock(&ctx->sending);
	return sent;
}

/* Negotiates; 0 if there is no agreement. */
static bool
negotiate(SMFICTX *ctx, const unsigned char *payload, size_t length)
{
	unsigned long actions, steps, no1, no2;
	unsigned char chosen[12];

	if (length < 12 || get32(payload) < 2)
		return false;
	ctx->actions = actions = get32(payload + 4);
	ctx->steps = steps = get32(payload + 8);
	if (filter.xxfi_negotiate != NULL) {
		sfsistat status = filter.xxfi_negotiate(ctx, ctx->actions, ctx->steps, 0, 0, &actions, &steps, &no1, &no2);
		if (status != SMFIS_CONTINUE || (actions & ~ctx->actions) != 0 || (steps & ~ctx->steps) != 0)
			return false;
	}
	ctx->actions = actions;
	ctx->steps = steps;
	put32(chosen, get32(payload) < SMFI_PROT_VERSION ? get32(payload) : SMFI_PROT_VERSION);
	put32(chosen + 4, (uint32_t)actions);
	put32(chosen + 8, (uint32_t)steps);
	gather(ctx, 'O', chosen, sizeof chosen, NULL, 0);
	return answer_with(ctx, 0);
}

/* Tells the filter who is connected; less than 0 if the payload does not. */
static sfsistat
connected(SMFICTX *ctx, unsigned char *payload, size_t length)
{
	union {
		struct sockaddr any;
		struct sockaddr_in inet;
		struct sockaddr_in6 inet6;
	} address = {0};
	unsigned char *family = memchr(payload, 0, length);

	if (family == NULL || ++family == payload + length || (*family != 'U' && payload[length - 1] != 0))
		return -1;
	if (*family == 'U')
		return filter.xxfi_connect(ctx, (char *)payload, NULL);
	if (payload + length - family < 4)
		return -1;
	if (*family == '4') {
		address.inet.sin_family = AF_INET;
		memcpy(&address.inet.sin_port, family + 1, 2);
		if (inet_pton(AF_INET, (char *)family + 3, &address.inet.sin_addr) != 1)
			return -1;
	} else {
		address.inet6.sin6_family = AF_INET6;
		memcpy(&address.inet6.sin6_port, family + 1, 2);
		if (inet_pton(AF_INET6, (char *)family + 3, &address.inet6.sin6_addr) != 1)
			return -1;
	}
	return filter.xxfi_connect(ctx, (char *)payload, &address.any);
}

/* Calls the callback with the strings of an envelope command as an array; less than 0 if they are none. */
static sfsistat
envelope(SMFICTX *ctx, sfsistat (*callback)(SMFICTX *, char **), unsigned char *payload, size_t length)
{
	char *few[8], **argv = few;
	size_t count = 0;

	if (payload[length - 1] != 0)
		return -1;
	for (unsigned char *at = payload; at < payload + length; at = (unsigned char *)strchr((char *)at, 0) + 1) {
		if (count + 1 == sizeof few / sizeof *few)
			return -1;
		argv[count++] = (char *)at;
	}
	argv[count] = NULL;
	return callback(ctx, argv);
}

/* Calls the callback of a header line. */
static sfsistat
header(SMFICTX *ctx, unsigned char *payload, size_t length)
{
	unsigned char *end = memchr(payload, 0, length);

	if (end == NULL || end + 1 >= payload + length || payload[length - 1] != 0)
		return -1;
	return filter.xxfi_header(ctx, (char *)payload, (char *)end + 1);
}

/* Does what a command asks for; false at the end of the session. The byte behind the payload is NUL. */
static bool
obey(SMFICTX *ctx, unsigned char command, unsigned char *payload, size_t length)
{
	sfsistat status = -1;

	if (atomic_load_explicit(&stops, memory_order_relaxed) || command == 'Q' || (follows[command] & BIT(ctx->stage)) == 0)
		return false;
	if (command == 'D') {
		if (length < 1)
			return false;
		if (macro_stage[payload[0]] != 0)
			define_macros(&ctx->macros[macro_stage[payload[0]]], payload + 1, length - 1);
		return true;
	}
	ctx->stage = leads_to[command];
	switch (command) {
	case 'O':
		forget_macros(ctx, 0);
		return negotiate(ctx, payload, length);
	case 'C':
		forget_macros(ctx, 1);
		status = connected(ctx, payload, length);
		break;
	case 'H':
		forget_macros(ctx, 2);
		if (length > 0 && payload[length - 1] == 0)
			status = filter.xxfi_helo(ctx, (char *)payload);
		break;
	case 'M':
		ctx->changes_allowed = false;
		forget_macros(ctx, 3);
		if (length > 0)
			status = envelope(ctx, filter.xxfi_envfrom, payload, length);
		break;
	case 'R':
		forget_macros(ctx, 4);
		if (length > 0)
			status = envelope(ctx, filter.xxfi_envrcpt, payload, length);
		break;
	case 'T':
		status = filter.xxfi_data(ctx);
		break;
	case 'L':
		status = header(ctx, payload, length);
		break;
	case 'N':
		status = filter.xxfi_eoh(ctx);
		break;
	case 'B':
		status = filter.xxfi_body(ctx, payload, length);
		break;
	case 'E':
		ctx->changes_allowed = true;
		status = filter.xxfi_eom(ctx);
		break;
	case 'A':
		filter.xxfi_abort(ctx);
		return true;
	}
	if (status == SMFIS_CONTINUE)
		return answer_with(ctx, 'c');
	return status == SMFIS_NOREPLY && (ctx->steps & SMFIP_NR_HDR) != 0;
}

/* Takes the whole frames that `in` has; false at the end of the session. */
static bool
take_frames(SMFICTX *ctx, unsigned char *in, size_t *filled)
{
	size_t at = 0;

	while (*filled - at >= 5) {
		size_t length = get32(in + at);
		unsigned char *payload = in + at + 5, behind;
		if (length == 0 || length > BUFFER - 4)
			return false;
		if (*filled - at < 4 + length)
			break;
		at += 4 + length;
		behind = in[at];
		in[at] = 0;
		if (!obey(ctx, payload[-1], payload, length - 1))
			return false;
		in[at] = behind;
	}
	if (at > 0 && *filled > at)
		memmove(in, in + at, *filled - at);
	*filled -= at;
	return true;
}

/* Accepts connections and serves each to its end. */
static void *
serve(void *unused)
{
	unsigned char *in = buffer(), *out = buffer();
	struct macros macros[MACRO_STAGES] = {0};

	for (;;) {
		int peer = accept_for_itself(listener, serve);
		if (peer < 0)
			continue;
		limit_receive(peer);
		SMFICTX *ctx = calloc(1, sizeof *ctx);
		pthread_mutex_init(&ctx->sending, NULL);
		ctx->peer = peer;
		ctx->out = out;
		ctx->macros = macros;
		size_t filled = 0;
		for (;;) {
			ssize_t got = recv(peer, in + filled, BUFFER - filled, 0);
			if (got < 0 && (errno == EAGAIN || errno == EINTR))
				continue;
			if (got <= 0)
				break;
			filled += (size_t)got;
			if (!take_frames(ctx, in, &filled))
				break;
		}
		if (ctx->stage >= MAIL && ctx->stage < END)
			filter.xxfi_abort(ctx);
		filter.xxfi_close(ctx);
		forget_macros(ctx, 0);
		close(peer);
		free(ctx);
	}
	return unused;
}

/* As documented, and so are all below. */
int
smfi_register(struct smfiDesc description)
{
	filter = description;
	return MI_SUCCESS;
}

int
smfi_setconn(char *connection)
{
	spec = strdup(connection);
	return MI_SUCCESS;
}

int
smfi_setbacklog(int backlog)
{
	(void)backlog;
	return MI_SUCCESS;
}

int
smfi_opensocket(bool remove)
{
	(void)remove;
	listener = listen_at(spec);
	return MI_SUCCESS;
}

int
smfi_main(void)
{
	serve(NULL);
	return MI_FAILURE;
}

int
smfi_addheader(SMFICTX *ctx, char *name, char *value)
{
	size_t name_length = strlen(name) + 1, value_length = strlen(value) + 1;
	int result = MI_FAILURE;

	pthread_mutex_lock(&ctx->sending);
	if (ctx->changes_allowed && (ctx->actions & SMFIF_ADDHDRS) != 0 && name_length > 1 &&
	    ctx->gathered + 2 * 5 + name_length + value_length <= BUFFER) {
		gather(ctx, 'h', name, name_length, value, value_length);
		result = MI_SUCCESS;
	}
	pthread_mutex_unlock(&ctx->sending);
	return result;
}
