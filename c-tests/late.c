/*
 * late: calls with the context of a session that has ended: behind smfi_main, and behind the next one. The argument is
 * the socket. Each smfi_main serves one session.
 */
#include <stdio.h>
#include <string.h>

#include <libmilter/mfapi.h>

static SMFICTX *ended;

/* Sessions without a client are those of a test that looks whether somebody listens. */
static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    (void)host, (void)address;
    smfi_setpriv(ctx, ctx);
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    if (smfi_getpriv(ctx) == NULL)
        return SMFIS_CONTINUE;
    smfi_setpriv(ctx, NULL);
    if (ended == NULL)
        ended = ctx;
    smfi_stop();
    return SMFIS_CONTINUE;
}

/* All that a context can be asked for; prints the results. */
static void call(void)
{
    char name[] = "X-Late", value[] = "value";

    printf("%d %d %d %d %d %d %d %d %d %s %s\n", smfi_setpriv(ended, name), smfi_setreply(ended, "550", NULL, value),
           smfi_setmlreply(ended, "550", NULL, value, (char *)NULL), smfi_progress(ended),
           smfi_addheader(ended, name, value), smfi_setsymlist(ended, SMFIM_CONNECT, name),
           smfi_addrcpt(ended, name), smfi_quarantine(ended, value),
           smfi_replacebody(ended, (unsigned char *)value, (int)strlen(value)),
           smfi_getpriv(ended) ? "something" : "nothing", smfi_getsymval(ended, "j") ? "something" : "nothing");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {
        .xxfi_name = "late",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS,
        .xxfi_connect = on_connect,
        .xxfi_close = on_close,
    };

    if (argc != 2 || smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 64;
    for (int round = 0; round < 2; round++) {
        if (smfi_opensocket(1) != MI_SUCCESS || smfi_main() != MI_SUCCESS)
            return 65;
        call();
    }
    return 0;
}
