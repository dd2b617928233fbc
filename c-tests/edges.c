/*
 * edges: a filter that lives as real ones do around the library: it forks before smfi_main, gives up its rights, has
 * signal handlers and threads of its own, needs a deep stack, keeps values per thread. The first argument says which
 * of that, the second is the socket. What happens is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <libmilter/mfapi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534, DEEP = 1 << 20, MANY = 200 };

static const char *mode;
static pthread_key_t per_thread;
static _Thread_local int visits;
static atomic_int kept, destroyed;
static volatile sig_atomic_t told;
static pid_t child;

/* Prints a line at once: other processes and threads print too. */
static void say(const char *what, long number)
{
	char line[100];
	int len = snprintf(line, sizeof line, "%s %ld\n", what, number);

	if (write(STDOUT_FILENO, line, (size_t)len) != len)
		abort();
}

/* Ends the program when a step that the test does not question fails. */
static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(70);
	}
}

/* The destructor of a thread's value. */
static void forget(void *value)
{
	free(value);
	atomic_fetch_add(&destroyed, 1);
}

/* Gives the thread a value that its end must destroy. */
static void keep(void)
{
	if (visits++ == 0) {
		must(pthread_setspecific(per_thread, calloc(1, 1)) == 0, "pthread_setspecific");
		atomic_fetch_add(&kept, 1);
	}
}

/* Needs a megabyte of stack, every page of it. */
static long dive(void)
{
	volatile char deep[DEEP];
	long sum = 0;
	size_t at;

	for (at = 0; at < sizeof deep; at += 512)
		deep[at] = (char)at;
	for (at = 0; at < sizeof deep; at += 512)
		sum += deep[at];
	return sum;
}

/* A helper thread during eom: shows the MTA that the filter is alive. */
static void *reassure(void *ctx)
{
	int n, failures = 0;

	for (n = 0; n < MANY; n++)
		failures += smfi_progress(ctx) != MI_SUCCESS;
	return failures == 0 ? NULL : ctx;
}

/* xxfi_eom */
static sfsistat on_eom(SMFICTX *ctx)
{
	char name[] = "X-Edge", value[20];
	pthread_t helper;
	void *failed = NULL;
	int n;

	keep();
	if (strcmp(mode, "stack") == 0)
		say("stack", dive() != -1);
	if (strcmp(mode, "helper") != 0) {
		say("addheader", smfi_addheader(ctx, name, mode[0] == 's' ? "s" : "other"));
		return SMFIS_CONTINUE;
	}
	must(pthread_create(&helper, NULL, reassure, ctx) == 0, "pthread_create");
	for (n = 0; n < MANY; n++) {
		snprintf(value, sizeof value, "%d", n);
		must(smfi_addheader(ctx, name, value) == MI_SUCCESS, "smfi_addheader");
	}
	must(pthread_join(helper, &failed) == 0 && failed == NULL, "smfi_progress");
	return SMFIS_CONTINUE;
}

/* xxfi_helo */
static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	(void)ctx;
	(void)name;
	keep();
	return SMFIS_CONTINUE;
}

/* xxfi_close */
static sfsistat on_close(SMFICTX *ctx)
{
	(void)ctx;
	say("close in a process of uid", (long)geteuid());
	return SMFIS_CONTINUE;
}

/* Passes SIGTERM on to the daemon. */
static void pass_on(int signal_number)
{
	kill(child, signal_number);
}

/* A handler of the filter's own. */
static void note(int signal_number)
{
	told = signal_number;
}

/* smfi_main in a thread of its own. */
static void *serve(void *result)
{
	*(int *)result = smfi_main();
	return NULL;
}

/* Waits for SIGUSR1 as a filter's housekeeping thread does. */
static void *keep_house(void *signals)
{
	int signal_number = 0;

	while (sigwait(signals, &signal_number) == 0)
		say("housekeeping", signal_number);
	return NULL;
}

/* The parent of a daemon: forks behind smfi_opensocket, and lives as long as its child. */
static int run_forked(void)
{
	int status = 0, null;

	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		must(setsid() > 0 && chdir("/") == 0, "daemon");
		null = open("/dev/null", O_RDWR);
		must(dup2(null, STDIN_FILENO) == STDIN_FILENO && close(null) == 0, "dup2");
		return smfi_main();
	}
	signal(SIGTERM, pass_on);
	while (waitpid(child, &status, 0) < 0)
		must(errno == EINTR, "waitpid");
	say("daemon ended with", status);
	return MI_SUCCESS;
}

/* smfi_main in a second thread, signal handlers and another thread in the hands of the filter. */
static int run_second(void)
{
	struct sigaction action;
	static sigset_t usr1;
	sigset_t term, before;
	pthread_t server, house;
	int result = MI_FAILURE;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	must(pthread_sigmask(SIG_BLOCK, &usr1, NULL) == 0, "pthread_sigmask");
	must(pthread_create(&house, NULL, keep_house, &usr1) == 0, "pthread_create");
	memset(&action, 0, sizeof action);
	action.sa_handler = note;
	must(sigaction(SIGTERM, &action, NULL) == 0, "sigaction");
	must(pthread_create(&server, NULL, serve, &result) == 0, "pthread_create");
	/* Blocked only to wait without a race; open for the whole wait, as in a main thread that sleeps. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	must(pthread_sigmask(SIG_BLOCK, &term, &before) == 0, "pthread_sigmask");
	sigdelset(&before, SIGTERM);
	while (!told)
		sigsuspend(&before);
	say("own handler", told);
	smfi_stop();
	must(pthread_join(server, NULL) == 0, "pthread_join");
	return result;
}

/* Sets everything up, and runs as the mode says. */
int main(int argc, char **argv)
{
	struct smfiDesc desc;
	int result, waited;

	must(argc == 3, "usage: edges MODE SOCKET");
	mode = argv[1];
	must(pthread_key_create(&per_thread, forget) == 0, "pthread_key_create");
	memset(&desc, 0, sizeof desc);
	desc.xxfi_name = argv[0];
	desc.xxfi_version = SMFI_VERSION;
	desc.xxfi_flags = SMFIF_ADDHDRS;
	desc.xxfi_helo = on_helo;
	desc.xxfi_eom = on_eom;
	desc.xxfi_close = on_close;
	must(smfi_register(desc) == MI_SUCCESS, "smfi_register");
	must(smfi_setconn(argv[2]) == MI_SUCCESS, "smfi_setconn");
	must(smfi_opensocket(1) == MI_SUCCESS, "smfi_opensocket");
	if (strcmp(mode, "setuid") == 0)
		must(setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "setuid");
	if (strcmp(mode, "fork") == 0)
		result = run_forked();
	else if (strcmp(mode, "second") == 0)
		result = run_second();
	else
		result = smfi_main();
	if (strcmp(mode, "threads") == 0) {
		/* The threads end at about the same time as smfi_main. */
		for (waited = 0; waited < 30000 && atomic_load(&destroyed) != atomic_load(&kept); waited++)
			usleep(1000);
		say("destroyed all of some", atomic_load(&kept) > 0 && atomic_load(&destroyed) == atomic_load(&kept));
	}
	say("main", result);
	return result == MI_SUCCESS ? 0 : 1;
}
