/*
 * A filter for the sanitizers. It does what races and stale pointers would show in: private data, macros kept across
 * commands, a helper thread that talks to the MTA and asks for macros while the callback waits, replies, long callbacks.
 */
#include <libmilter/mfapi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct session {
    int commands;
    char *client;
};

static void touch_macro(SMFICTX *ctx, const char *name)
{
    char *value = smfi_getsymval(ctx, (char *)name);
    /* Some filters write into what they get. */
    if (value && *value)
        *value = 'x';
}

static struct session *count(SMFICTX *ctx)
{
    struct session *session = smfi_getpriv(ctx);
    if (session)
        session->commands++;
    touch_macro(ctx, "j");
    touch_macro(ctx, "i");
    return session;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    (void)address;
    struct session *session = smfi_getpriv(ctx);
    if (!session && (session = calloc(1, sizeof *session)))
        smfi_setpriv(ctx, session);
    if (!session)
        return SMFIS_TEMPFAIL;
    free(session->client);
    session->client = strdup(host);
    return SMFIS_CONTINUE;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    count(ctx);
    if (strcmp(name, "slow") == 0)
        usleep(20000);
    if (strcmp(name, "stop") == 0)
        smfi_stop();
    return SMFIS_CONTINUE;
}

static sfsistat on_mail(SMFICTX *ctx, char **arguments)
{
    count(ctx);
    for (; *arguments; arguments++)
        **arguments = 0;
    return SMFIS_CONTINUE;
}

static sfsistat on_rcpt(SMFICTX *ctx, char **arguments)
{
    count(ctx);
    if (strcmp(arguments[0], "<nobody>") != 0)
        return SMFIS_CONTINUE;
    smfi_setmlreply(ctx, "550", "5.7.1", "no", "such", "user", NULL);
    return SMFIS_REJECT;
}

static sfsistat on_data(SMFICTX *ctx)
{
    count(ctx);
    return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    count(ctx);
    name[0] = 0;
    value[0] = 0;
    return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
    count(ctx);
    memset(piece, 'x', length);
    return SMFIS_CONTINUE;
}

static void *help(void *ctx)
{
    for (int i = 0; i < 5; i++) {
        smfi_progress(ctx);
        smfi_getsymval(ctx, "i");
        smfi_setreply(ctx, "451", NULL, "later");
    }
    return NULL;
}

static sfsistat on_end(SMFICTX *ctx)
{
    pthread_t helper;
    /* Not while the helper asks for macros: that race would be the filter's. */
    count(ctx);
    bool helped = pthread_create(&helper, NULL, help, ctx) == 0;
    smfi_addheader(ctx, "X-Sanitized", "yes");
    smfi_chgheader(ctx, "Subject", 1, NULL);
    smfi_addrcpt(ctx, "<more@example.org>");
    smfi_replacebody(ctx, (unsigned char *)"new\r\n", 5);
    if (helped)
        pthread_join(helper, NULL);
    return SMFIS_CONTINUE;
}

static sfsistat on_abort(SMFICTX *ctx)
{
    count(ctx);
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    struct session *session = smfi_getpriv(ctx);
    if (session)
        free(session->client);
    free(session);
    smfi_setpriv(ctx, NULL);
    return SMFIS_CONTINUE;
}

int main(int count_of_arguments, char **arguments)
{
    struct smfiDesc filter = {
        .xxfi_name = "sanitized",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_ADDRCPT | SMFIF_CHGBODY,
        .xxfi_connect = on_connect,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_mail,
        .xxfi_envrcpt = on_rcpt,
        .xxfi_data = on_data,
        .xxfi_header = on_header,
        .xxfi_body = on_body,
        .xxfi_eom = on_end,
        .xxfi_abort = on_abort,
        .xxfi_close = on_close,
    };
    if (count_of_arguments != 2 || smfi_setconn(arguments[1]) != MI_SUCCESS
        || smfi_register(filter) != MI_SUCCESS || smfi_settimeout(30) != MI_SUCCESS
        || smfi_opensocket(true) != MI_SUCCESS)
        return 1;
    puts("listening");
    fflush(stdout);
    return smfi_main() == MI_SUCCESS ? 0 : 2;
}
