/*
 * log-everything: prints all that a mail server tells a filter, a line for each event and each macro, and lets
 * every message pass. Each line begins with the number of its session.
 */
#define _GNU_SOURCE /* vasprintf */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

#include "arguments.h"

/* The macros that we ask the mail server for, and print, by stage. */
static char *const wanted[] = {
    [SMFIM_CONNECT] = "j _ v {daemon_name} {daemon_addr} {daemon_port} {if_name} {if_addr} {client_name} "
                      "{client_addr} {client_port} {client_ptr} {client_resolve} {client_connections}",
    [SMFIM_HELO] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer} {verify}",
    [SMFIM_ENVFROM] = "i {auth_type} {auth_authen} {auth_ssf} {auth_author} {mail_mailer} {mail_host} {mail_addr}",
    [SMFIM_ENVRCPT] = "{rcpt_mailer} {rcpt_host} {rcpt_addr} {nrcpts} {nbadrcpts}",
    [SMFIM_DATA] = "i {nrcpts}",
    [SMFIM_EOH] = "i {msg_size}",
    [SMFIM_EOM] = "i {msg_id} {msg_size}",
};

/* Prints a line with its control characters made visible, then the macros of `stage` that have a value. */
static sfsistat say(SMFICTX *ctx, int stage, const char *format, ...)
{
    static uintptr_t sessions; /* how many there were; like each line guarded by the lock of stdout */
    uintptr_t number = (uintptr_t)smfi_getpriv(ctx);
    char names[256], *text, *rest = names, *name, *value;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    flockfile(stdout);
    if (number == 0)
        smfi_setpriv(ctx, (void *)(number = ++sessions));
    printf("%lu ", (unsigned long)number);
    for (char *c = text; c != NULL && *c != '\0'; c++)
        printf((unsigned char)*c < ' ' || *c == '\\' || *c == 0x7f ? "\\x%02x" : "%c", (unsigned char)*c);
    putchar('\n');
    fflush(stdout);
    funlockfile(stdout);
    free(text);
    snprintf(names, sizeof names, "%s", stage == SMFIM_NOMACROS ? "" : wanted[stage]);
    while ((name = strtok_r(rest, " ", &rest)) != NULL)
        if ((value = smfi_getsymval(ctx, name)) != NULL)
            say(ctx, SMFIM_NOMACROS, "  macro %s = %s", name, value);
    return SMFIS_CONTINUE;
}

/* What the mail server can do: we take all of it, and ask for our macros. */
static sfsistat at_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long f2,
                             unsigned long f3, unsigned long *my_actions, unsigned long *my_steps,
                             unsigned long *my_f2, unsigned long *my_f3)
{
    (void)f2, (void)f3, (void)my_actions, (void)my_steps, (void)my_f2, (void)my_f3;
    say(ctx, SMFIM_NOMACROS, "negotiate: actions %#lx, steps %#lx", actions, steps);
    for (int stage = SMFIM_FIRST; stage <= SMFIM_LAST && (actions & SMFIF_SETSYMLIST) != 0; stage++)
        if (smfi_setsymlist(ctx, stage, wanted[stage]) != MI_SUCCESS)
            say(ctx, SMFIM_NOMACROS, "  failed to ask for macros at stage %d", stage);
    return SMFIS_ALL_OPTS;
}

/* A client has connected to the mail server. */
static sfsistat at_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *peer)
{
    struct sockaddr_in *in = (struct sockaddr_in *)peer;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)peer;
    char ip[INET6_ADDRSTRLEN] = "";

    if (peer == NULL || (peer->sa_family != AF_INET && peer->sa_family != AF_INET6))
        return say(ctx, SMFIM_CONNECT, "connect: %s, not from the network", host);
    if (peer->sa_family == AF_INET)
        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
    else
        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
    return say(ctx, SMFIM_CONNECT, "connect: %s, address %s", host, ip);
}

/* HELO or EHLO. */
static sfsistat at_helo(SMFICTX *ctx, char *name) { return say(ctx, SMFIM_HELO, "helo: %s", name); }

/* MAIL FROM: the sender, then the ESMTP parameters. */
static sfsistat at_mail(SMFICTX *ctx, char **argv)
{
    say(ctx, SMFIM_ENVFROM, "mail: %s", argv[0]);
    while (*++argv != NULL)
        say(ctx, SMFIM_NOMACROS, "  parameter %s", *argv);
    return SMFIS_CONTINUE;
}

/* RCPT TO, for each recipient: the address, then the ESMTP parameters. */
static sfsistat at_rcpt(SMFICTX *ctx, char **argv)
{
    say(ctx, SMFIM_ENVRCPT, "rcpt: %s", argv[0]);
    while (*++argv != NULL)
        say(ctx, SMFIM_NOMACROS, "  parameter %s", *argv);
    return SMFIS_CONTINUE;
}

/* DATA. */
static sfsistat at_data(SMFICTX *ctx) { return say(ctx, SMFIM_DATA, "data"); }

/* One header line. */
static sfsistat at_header(SMFICTX *ctx, char *name, char *value)
{ return say(ctx, SMFIM_NOMACROS, "header: %s: %s", name, value); }

/* The empty line behind the header. */
static sfsistat at_eoh(SMFICTX *ctx) { return say(ctx, SMFIM_EOH, "end of header"); }

/* A piece of the body. */
static sfsistat at_body(SMFICTX *ctx, unsigned char *bytes, size_t length)
{ return (void)bytes, say(ctx, SMFIM_NOMACROS, "body: %zu bytes", length); }

/* The end of the message. */
static sfsistat at_eom(SMFICTX *ctx) { return say(ctx, SMFIM_EOM, "end of message"); }

/* The message will not be delivered. */
static sfsistat at_abort(SMFICTX *ctx) { return say(ctx, SMFIM_NOMACROS, "abort"); }

/* A command that the mail server does not know. */
static sfsistat at_unknown(SMFICTX *ctx, const char *text) { return say(ctx, SMFIM_NOMACROS, "unknown: %s", text); }

/* The session is over: what smfi_setpriv holds must be taken back. */
static sfsistat at_close(SMFICTX *ctx) { return say(ctx, SMFIM_NOMACROS, "close"), smfi_setpriv(ctx, NULL); }

/* Registers all callbacks, opens the socket and serves until SIGTERM. */
int main(int argc, char **argv)
{
    char *spec = socket_argument(argc, argv, "Prints all that the mail server says, and lets every message pass.");
    struct smfiDesc filter = {
        "log-everything", SMFI_VERSION, SMFIF_NONE, at_connect, at_helo, at_mail, at_rcpt, at_header, at_eoh,
        at_body, at_eom, at_abort, at_close, at_unknown, at_data, at_negotiate,
    };

    openlog("log-everything", LOG_PID | LOG_PERROR, LOG_MAIL); /* what the library has to say goes there */
    if (smfi_register(filter) == MI_SUCCESS && smfi_setconn(spec) == MI_SUCCESS &&
        smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS)
        return 0;
    fprintf(stderr, "%s: cannot serve \"%s\": the log line above says why\n", argv[0], spec);
    return 1;
}
