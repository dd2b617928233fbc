/*
 * The C filter that every libmilter is measured with: all callbacks registered, none does anything, except
 * that the end of a message adds one header where the scenario asks for it, and that a sender <sleep-50@...>
 * takes 50 ms. It refuses to be useful.
 *
 * null-filter SPEC [h][n]    h: add a header at the end of each message; n: no replies to header lines
 */
#include <libmilter/mfapi.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether to add a header, and whether to switch header replies off. */
static int adds_header, silent_headers;

/* Goes on. */
static sfsistat
on_connect(SMFICTX *ctx, char *host, struct sockaddr *address)
{
	(void)ctx, (void)host, (void)address;
	return SMFIS_CONTINUE;
}

/* Goes on. */
static sfsistat
on_text(SMFICTX *ctx, char *text)
{
	(void)ctx, (void)text;
	return SMFIS_CONTINUE;
}

/* Goes on. */
static sfsistat
on_recipient(SMFICTX *ctx, char **argv)
{
	(void)ctx, (void)argv;
	return SMFIS_CONTINUE;
}

/* Goes on, after a sleep of as many milliseconds as the sender says. */
static sfsistat
on_sender(SMFICTX *ctx, char **argv)
{
	(void)ctx;
	if (strncmp(argv[0], "<sleep-", 7) == 0)
		usleep((useconds_t)atoi(argv[0] + 7) * 1000);
	return SMFIS_CONTINUE;
}

/* Goes on, without a reply where none is due. */
static sfsistat
on_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx, (void)name, (void)value;
	return silent_headers ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

/* Goes on. */
static sfsistat
on_step(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

/* Goes on. */
static sfsistat
on_body(SMFICTX *ctx, unsigned char *chunk, size_t length)
{
	(void)ctx, (void)chunk, (void)length;
	return SMFIS_CONTINUE;
}

/* Adds the header if it is wanted. */
static sfsistat
on_eom(SMFICTX *ctx)
{
	static char name[] = "X-Null-Filter", value[] = "passed";

	if (adds_header && smfi_addheader(ctx, name, value) != MI_SUCCESS)
		return SMFIS_TEMPFAIL;
	return SMFIS_CONTINUE;
}

/* Wants every step; asks for no header replies if told so. */
static sfsistat
on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long f2, unsigned long f3,
    unsigned long *want_actions, unsigned long *want_steps, unsigned long *want2, unsigned long *want3)
{
	(void)ctx, (void)steps, (void)f2, (void)f3;
	*want_actions = actions & SMFIF_ADDHDRS;
	*want_steps = silent_headers ? SMFIP_NR_HDR : 0;
	*want2 = 0;
	*want3 = 0;
	return SMFIS_CONTINUE;
}

/* Registers the callbacks and serves until it is killed. */
int
main(int argc, char **argv)
{
	static char name[] = "null-filter";
	struct smfiDesc filter = {
		.xxfi_name = name,
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_text,
		.xxfi_envfrom = on_sender,
		.xxfi_envrcpt = on_recipient,
		.xxfi_header = on_header,
		.xxfi_eoh = on_step,
		.xxfi_body = on_body,
		.xxfi_eom = on_eom,
		.xxfi_abort = on_step,
		.xxfi_close = on_step,
		.xxfi_data = on_step,
		.xxfi_negotiate = on_negotiate,
	};

	if (argc < 2) {
		fprintf(stderr, "usage: null-filter SPEC [h][n]\n");
		return 2;
	}
	adds_header = argc > 2 && strchr(argv[2], 'h') != NULL;
	silent_headers = argc > 2 && strchr(argv[2], 'n') != NULL;
	if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS ||
	    smfi_setbacklog(1024) != MI_SUCCESS || smfi_opensocket(1) != MI_SUCCESS)
		return 1;
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
