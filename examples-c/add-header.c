/*
 * add-header: the smallest useful filter. It adds one header to every message and changes nothing else.
 *
 *     ./add-header unix:/run/f.sock           Postfix: smtpd_milters = unix:/run/f.sock
 *     ./add-header inet:8891@localhost        Sendmail: INPUT_MAIL_FILTER(`f', `S=inet:8891@localhost')
 */
#include <stdio.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

#include "arguments.h"

/* End of message: the one place where a message may be changed. */
static sfsistat at_eom(SMFICTX *ctx)
{
    const char *host = smfi_getsymval(ctx, "j"); /* the name of the mail server, if it tells us */
    char value[512];

    snprintf(value, sizeof value, "add-header on %s", host != NULL ? host : "an unnamed host");
    if (smfi_addheader(ctx, "X-Filtered-By", value) != MI_SUCCESS)
        return SMFIS_TEMPFAIL;
    return SMFIS_CONTINUE;
}

/* Everything that is not named here is not sent to us by the mail server. */
static struct smfiDesc filter = {
    .xxfi_name = "add-header",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = SMFIF_ADDHDRS,
    .xxfi_eom = at_eom,
};

/* Registers the filter, opens its socket and serves until SIGTERM. */
int main(int argc, char **argv)
{
    char *spec = socket_argument(argc, argv, "Adds the header X-Filtered-By to every message.");

    openlog("add-header", LOG_PID | LOG_PERROR, LOG_MAIL); /* what the library has to say goes there */
    if (smfi_register(filter) == MI_SUCCESS && smfi_setconn(spec) == MI_SUCCESS &&
        smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS)
        return 0;
    fprintf(stderr, "%s: cannot serve \"%s\": the log line above says why\n", argv[0], spec);
    return 1;
}
