/*
 * cycles: a filter that is started and stopped again and again, at random moments and in every way, for as many
 * milliseconds as the second argument says; the first is the socket, the third the seed. With the seed 0 it is started once, and
 * others stop it. If there is a fourth argument, smfi_main may fail. It ends by abort() when a session is not closed exactly once, when a message that has begun does not end exactly once,
 * and when a callback runs while smfi_main does not. At the end it prints what it has seen.
 */
#define _GNU_SOURCE
#include <libmilter/mfapi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

struct session {
    bool in_message;
};

static atomic_bool is_running, is_over, stop_in_callback;
static atomic_int open_sessions, all_sessions, messages, aborts, runs;

static void fault(const char *what)
{
    dprintf(STDERR_FILENO, "fault in run %d: %s\n", runs, what);
    abort();
}

/* Stands in for the C library's function: what is logged is of no interest here. */
void syslog(int priority, const char *format, ...)
{
    (void)priority, (void)format;
}

static struct session *session_of(SMFICTX *ctx)
{
    if (!is_running)
        fault("a callback after the end");
    return smfi_getpriv(ctx);
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
    unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
    (void)f0, (void)f1, (void)f2, (void)f3, (void)pf0, (void)pf1, (void)pf2, (void)pf3;
    if (session_of(ctx) != NULL)
        fault("negotiated twice");
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL || smfi_setpriv(ctx, session) != MI_SUCCESS)
        fault("setpriv");
    open_sessions++;
    all_sessions++;
    return SMFIS_ALL_OPTS;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    if (session_of(ctx) == NULL)
        fault("HELO before the negotiation, or after the end");
    if (strcmp(name, "slow") == 0)
        usleep(20000);
    if (atomic_exchange(&stop_in_callback, false))
        smfi_stop();
    return SMFIS_CONTINUE;
}

static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
    (void)argv;
    struct session *session = session_of(ctx);
    if (session == NULL || session->in_message)
        fault("MAIL inside a message, or after the end");
    session->in_message = true;
    messages++;
    return SMFIS_CONTINUE;
}

static sfsistat on_eom(SMFICTX *ctx)
{
    struct session *session = session_of(ctx);
    if (session == NULL || !session->in_message)
        fault("the end of no message");
    smfi_addheader(ctx, "X-Seen", "yes");
    session->in_message = false;
    return SMFIS_CONTINUE;
}

static sfsistat on_abort(SMFICTX *ctx)
{
    struct session *session = session_of(ctx);
    if (session == NULL || !session->in_message)
        fault("abort of no message");
    session->in_message = false;
    aborts++;
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    struct session *session = session_of(ctx);
    if (session == NULL)
        return SMFIS_CONTINUE; /* The connection was closed before the negotiation. */
    if (session->in_message)
        fault("close without abort");
    smfi_setpriv(ctx, NULL);
    free(session);
    open_sessions--;
    return SMFIS_CONTINUE;
}

static void stop_from_handler(int number)
{
    (void)number;
    smfi_stop();
}

/* Stops the filter in some way, at some moment of each run. */
static void *stop_again_and_again(void *seed)
{
    unsigned state = *(unsigned *)seed;
    while (!is_over) {
        int run = runs;
        int way = rand_r(&state) % 7;
        usleep(rand_r(&state) % 4 == 0 ? 0 : rand_r(&state) % 20000);
        if (way < 3) {
            kill(getpid(), (int[]){ SIGTERM, SIGHUP, SIGINT }[way]);
        } else if (way == 3) {
            kill(getpid(), SIGUSR1);
        } else if (way == 4) {
            stop_in_callback = true;
            usleep(20000);
            /* Perhaps no MTA has come. */
            if (runs == run)
                smfi_stop();
        } else {
            smfi_stop();
        }
        while (runs == run && !is_over)
            usleep(100);
    }
    return NULL;
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {
        .xxfi_name = "cycles",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_envfrom,
        .xxfi_eom = on_eom,
        .xxfi_abort = on_abort,
        .xxfi_close = on_close,
        .xxfi_negotiate = on_negotiate,
    };
    sigset_t stops;
    pthread_t stopper;
    int failures = 0;

    if (argc < 4)
        return 64;
    unsigned seed = strtoul(argv[3], NULL, 10);
    /* A stop that comes too late for one run is for the next one. */
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGHUP);
    sigaddset(&stops, SIGINT);
    if (seed != 0)
        pthread_sigmask(SIG_BLOCK, &stops, NULL);
    signal(SIGUSR1, stop_from_handler);
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 65;
    while (seed != 0 && pthread_create(&stopper, NULL, stop_again_and_again, &seed) != 0)
        ;
    long end = milliseconds() + strtol(argv[2], NULL, 10);
    while (seed != 0 ? milliseconds() < end : runs == 0) {
        is_running = true;
        bool has_failed = smfi_opensocket(1) != MI_SUCCESS || smfi_main() != MI_SUCCESS;
        is_running = false;
        failures += has_failed;
        if (has_failed && argc == 4)
            fault("smfi_main");
        if (open_sessions != 0)
            fault("a session was not closed");
        runs++;
    }
    is_over = true;
    if (seed != 0)
        pthread_join(stopper, NULL);
    printf("%d runs, %d failed, %d sessions, %d messages, %d aborts\n", runs, failures, all_sessions, messages, aborts);
    return 0;
}
