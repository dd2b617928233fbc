/*
 * A filter that does wrong what LIBMILTER_CHECK looks for: all of it at the end of a message, and by order of the HELO name
 * or the host name. Its log lines are printed.
 */
#include <libmilter/mfapi.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Stands in for the C library's function. */
void syslog(int priority, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    flockfile(stdout);
    printf("syslog %d ", priority);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    funlockfile(stdout);
    va_end(arguments);
}

/* It wants all changes that it makes, but says nothing of macro lists, and asks for one. */
static sfsistat at_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
                             unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
    (void)f0, (void)f1, (void)f2, (void)f3, (void)pf2, (void)pf3;
    smfi_setsymlist(ctx, SMFIM_CONNECT, "j");
    *pf0 = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_CHGBODY | SMFIF_ADDRCPT | SMFIF_DELRCPT | SMFIF_CHGFROM;
    *pf1 = 0;
    return SMFIS_CONTINUE;
}

static sfsistat at_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *peer)
{
    (void)ctx, (void)peer;
    return strcmp(host, "discard") == 0 ? SMFIS_DISCARD : SMFIS_CONTINUE;
}

static sfsistat at_helo(SMFICTX *ctx, char *name)
{
    if (strcmp(name, "late") == 0)
        smfi_setsymlist(ctx, SMFIM_EOM, "i");
    return strcmp(name, "skip") == 0      ? SMFIS_SKIP
           : strcmp(name, "noreply") == 0 ? SMFIS_NOREPLY
                                          : SMFIS_CONTINUE;
}

static sfsistat at_eom(SMFICTX *ctx)
{
    static char line[3000];
    memset(line, 'x', sizeof line);
    smfi_addheader(ctx, "X:Y", "value");
    smfi_insheader(ctx, 0, "X\nY", "value");
    smfi_chgheader(ctx, "X-Fold", 1, "one\ntwo");
    line[1000] = '\0';
    smfi_addheader(ctx, "X-Long", line);
    line[1000] = 'x';
    line[2999] = '\0';
    smfi_addheader(ctx, "X-Longer", line);
    smfi_addrcpt(ctx, "<a@example.org>\r\nX");
    smfi_replacebody(ctx, (unsigned char *)line, 1000);
    smfi_addheader(ctx, "X-Between", "value");
    smfi_replacebody(ctx, (unsigned char *)line, 2500);
    smfi_setreply(ctx, "550", "4.7.1", "100% full");
    return SMFIS_REJECT;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {
        .xxfi_name = "wrong",
        .xxfi_version = SMFI_VERSION,
        .xxfi_negotiate = at_negotiate,
        .xxfi_connect = at_connect,
        .xxfi_helo = at_helo,
        .xxfi_eom = at_eom,
    };
    if (argc != 2 || smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
