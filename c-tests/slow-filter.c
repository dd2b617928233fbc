/*
 * slow-filter: a filter that takes its time. The first argument is the socket, the second says what the filter does:
 *
 *   work    in eom it works, adds a header, works, adds a header, ..., as a filter does that asks one scanner after the
 *           other; this is what it does by default
 *   hold    in eom it works for a moment, adds a header, and holds until it is released; HELO is held, too
 *   helper  in eom a second thread gives the message a new body, which takes as long as the MTA does not read it, while
 *           the first thread asks for a macro and stores a reply
 *
 * What happens is printed. SIGUSR1 releases a callback that is held.
 */
#include <libmilter/mfapi.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long it works, in milliseconds; and more bytes than a socket holds. */
enum { MOMENT = 150, WHILE = 1500, BODY = 16 << 20 };

static const char *mode = "work";
static sem_t released;

/* Prints a line at once. */
static void say(const char *line)
{
	if (write(STDOUT_FILENO, line, strlen(line)) < 0)
		abort();
}

/* SIGUSR1 */
static void release(int number)
{
	(void)number;
	sem_post(&released);
}

/* Waits to be released. */
static void hold(const char *where)
{
	say(where);
	while (sem_wait(&released) != 0)
		;
}

/* Works. */
static void work(long time)
{
	struct timespec left = {time / 1000, time % 1000 * 1000000};

	while (nanosleep(&left, &left) != 0)
		;
}

/* Adds a header, which must succeed. */
static void add_header(SMFICTX *ctx, char *value)
{
	if (smfi_addheader(ctx, "X-Slow", value) != MI_SUCCESS)
		say("addheader failed\n");
}

/* Sends a body. */
static void *replace_body(void *ctx)
{
	unsigned char *body = calloc(1, BODY);

	say(smfi_replacebody(ctx, body, BODY) == MI_SUCCESS ? "replaced\n" : "replacebody failed\n");
	free(body);
	return NULL;
}

/* xxfi_helo */
static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	(void)ctx;
	(void)name;
	if (strcmp(mode, "hold") == 0)
		hold("helo\n");
	return SMFIS_CONTINUE;
}

/* xxfi_eom */
static sfsistat on_eom(SMFICTX *ctx)
{
	static char *const values[] = {"1", "2", "3", "4"};
	pthread_t helper;
	size_t n;

	if (strcmp(mode, "work") == 0) {
		for (n = 0; n < sizeof values / sizeof *values; n++) {
			work(WHILE);
			add_header(ctx, values[n]);
		}
	} else if (strcmp(mode, "hold") == 0) {
		work(MOMENT);
		add_header(ctx, "early");
		hold("eom\n");
		add_header(ctx, "late");
	} else {
		pthread_create(&helper, NULL, replace_body, ctx);
		hold("eom\n");
		say(smfi_getsymval(ctx, "j") != NULL ? "macro\n" : "no macro\n");
		say(smfi_setreply(ctx, "550", NULL, "no") == MI_SUCCESS ? "reply\n" : "no reply\n");
		pthread_join(helper, NULL);
	}
	return SMFIS_CONTINUE;
}

int main(int argc, char *argv[])
{
	struct smfiDesc filter = {
		.xxfi_name = "slow-filter",
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGBODY,
		.xxfi_helo = on_helo,
		.xxfi_eom = on_eom,
	};

	if (argc < 2)
		return 64;
	if (argc > 2)
		mode = argv[2];
	sem_init(&released, 0, 0);
	signal(SIGUSR1, release);
	if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
		return 70;
	return smfi_main() == MI_SUCCESS ? 0 : 70;
}
