/*
 * edit-message: changes all that a filter may change: header, sender, recipients and body.
 *
 * X-Edited-By is added, X-Original-Sender put on top, Subject marked, every X-Internal removed; the sender becomes
 * <bounces@example.org>; <archive@example.org> and <audit@example.org> get copies, <drop@...> does not; the body
 * gets a last line. A message with the header "X-Quarantine: REASON" is held by the mail server.
 */
#define _GNU_SOURCE /* asprintf, strncasecmp */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

#include "arguments.h"

/* What we remember of a session's present message until its end, where it may be changed. */
struct message {
    char *sender, *subject, *quarantine, *dropped[100]; /* dropped: recipients that shall not get it */
    int dropped_count, internal_count;
    unsigned char *body;
    size_t length;
};

/* Forgets the message. */
static void forget(struct message *message)
{
    while (message->dropped_count > 0)
        free(message->dropped[--message->dropped_count]);
    free(message->sender);
    free(message->subject);
    free(message->quarantine);
    free(message->body);
    memset(message, 0, sizeof *message);
}

/* MAIL FROM: a new message begins, perhaps not the first of this session. */
static sfsistat at_mail(SMFICTX *ctx, char **argv)
{
    struct message *message = smfi_getpriv(ctx);

    if (message == NULL && (message = calloc(1, sizeof *message)) == NULL)
        return SMFIS_TEMPFAIL;
    smfi_setpriv(ctx, message);
    forget(message);
    return (message->sender = strdup(argv[0])) == NULL ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

/* RCPT TO: remembers whom to drop, spelt as it came: smfi_delrcpt wants that. */
static sfsistat at_rcpt(SMFICTX *ctx, char **argv)
{
    struct message *message = smfi_getpriv(ctx);

    if (message == NULL || strncasecmp(argv[0], "<drop@", strlen("<drop@")) != 0)
        return SMFIS_CONTINUE;
    if (message->dropped_count == 100 || (message->dropped[message->dropped_count] = strdup(argv[0])) == NULL)
        return SMFIS_TEMPFAIL;
    message->dropped_count++;
    return SMFIS_CONTINUE;
}

/* One header line: remembers what at_eom needs. */
static sfsistat at_header(SMFICTX *ctx, char *name, char *value)
{
    struct message *message = smfi_getpriv(ctx);

    if (message == NULL)
        return SMFIS_TEMPFAIL;
    if (strcasecmp(name, "X-Internal") == 0)
        message->internal_count++;
    if (strcasecmp(name, "X-Quarantine") == 0 && message->quarantine == NULL)
        return (message->quarantine = strdup(value)) == NULL ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
    if (strcasecmp(name, "Subject") == 0 && message->subject == NULL &&
        asprintf(&message->subject, "[edited] %s", value) < 0)
        return message->subject = NULL, SMFIS_TEMPFAIL;
    return SMFIS_CONTINUE;
}

/* A piece of the body: a body can only be replaced whole, so we keep it whole. */
static sfsistat at_body(SMFICTX *ctx, unsigned char *bytes, size_t length)
{
    struct message *message = smfi_getpriv(ctx);
    unsigned char *body;

    if (message == NULL || (body = realloc(message->body, message->length + length + 1)) == NULL)
        return SMFIS_TEMPFAIL;
    memcpy(body + message->length, bytes, length);
    message->body = body;
    message->length += length;
    return SMFIS_CONTINUE;
}

/* End of message: makes all changes. One that fails is the mail server's trouble: it shall try again later. */
static sfsistat at_eom(SMFICTX *ctx)
{
    static unsigned char footer[] = "-- \r\nedited by edit-message\r\n";
    struct message *message = smfi_getpriv(ctx);
    int failed = smfi_progress(ctx); /* "still working on it": long work says so now and then */

    if (message == NULL)
        return SMFIS_TEMPFAIL;
    failed |= smfi_addheader(ctx, "X-Edited-By", "edit-message");
    failed |= smfi_insheader(ctx, 0, "X-Original-Sender", message->sender);
    if (message->subject != NULL)
        failed |= smfi_chgheader(ctx, "Subject", 1, message->subject);
    while (message->internal_count > 0) /* the last one first, so that the others keep their numbers */
        failed |= smfi_chgheader(ctx, "X-Internal", message->internal_count--, NULL);
    failed |= smfi_chgfrom(ctx, "<bounces@example.org>", NULL);
    failed |= smfi_addrcpt(ctx, "<archive@example.org>");
    failed |= smfi_addrcpt_par(ctx, "<audit@example.org>", "NOTIFY=NEVER");
    for (int i = 0; i < message->dropped_count; i++)
        failed |= smfi_delrcpt(ctx, message->dropped[i]);
    failed |= smfi_replacebody(ctx, message->body, (int)message->length);
    failed |= smfi_replacebody(ctx, footer, sizeof footer - 1); /* goes behind the first piece */
    if (message->quarantine != NULL)
        failed |= smfi_quarantine(ctx, message->quarantine);
    forget(message);
    return failed == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

/* The session is over, perhaps amid a message; we may have seen none at all. */
static sfsistat at_close(SMFICTX *ctx)
{
    struct message *message = smfi_getpriv(ctx);

    if (message != NULL)
        forget(message);
    free(message);
    return smfi_setpriv(ctx, NULL);
}

/* Registers the filter, opens its socket and serves until SIGTERM. */
int main(int argc, char **argv)
{
    char *spec = socket_argument(argc, argv, "Changes all that a filter may change: header, sender, recipients and body.");
    struct smfiDesc filter = {
        .xxfi_name = "edit-message",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_CHGFROM | SMFIF_ADDRCPT | SMFIF_ADDRCPT_PAR |
                      SMFIF_DELRCPT | SMFIF_CHGBODY | SMFIF_QUARANTINE,
        .xxfi_envfrom = at_mail, .xxfi_envrcpt = at_rcpt, .xxfi_header = at_header,
        .xxfi_body = at_body, .xxfi_eom = at_eom, .xxfi_close = at_close,
    };

    openlog("edit-message", LOG_PID | LOG_PERROR, LOG_MAIL); /* what the library has to say goes there */
    if (smfi_register(filter) == MI_SUCCESS && smfi_setconn(spec) == MI_SUCCESS &&
        smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS)
        return 0;
    fprintf(stderr, "%s: cannot serve \"%s\": the log line above says why\n", argv[0], spec);
    return 1;
}
