/*
 * callbacks: what every function that takes a context returns in every callback, for good and bad arguments. The
 * first argument is the socket, the second the actions to register for, in hexadecimal. Results are printed; what
 * goes to the mail server the test sees at the other end.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmilter/mfapi.h>

static char long_line[1100];

#define RESULT(call) printf("  %s = %d\n", #call, call)

/* The changes that are allowed at the end of a message. */
static void changes(SMFICTX *ctx)
{
    static unsigned char body[70000];

    memset(body, 'b', sizeof body);
    RESULT(smfi_addheader(ctx, "X-Add", "value"));
    RESULT(smfi_addheader(ctx, "X-Folded", " one\r\n\ttwo"));
    RESULT(smfi_addheader(ctx, "X-Empty", ""));
    RESULT(smfi_addheader(ctx, "", "value"));
    RESULT(smfi_addheader(ctx, NULL, "value"));
    RESULT(smfi_addheader(ctx, "X-Null", NULL));
    RESULT(smfi_insheader(ctx, 0, "X-Insert", "value"));
    RESULT(smfi_insheader(ctx, INT_MAX, "X-Insert", ""));
    RESULT(smfi_insheader(ctx, -1, "X-Insert", "value"));
    RESULT(smfi_insheader(ctx, INT_MIN, "X-Insert", "value"));
    RESULT(smfi_insheader(ctx, 1, "", "value"));
    RESULT(smfi_insheader(ctx, 1, NULL, "value"));
    RESULT(smfi_insheader(ctx, 1, "X-Insert", NULL));
    RESULT(smfi_chgheader(ctx, "Subject", 1, "changed"));
    RESULT(smfi_chgheader(ctx, "Subject", 0, "changed"));
    RESULT(smfi_chgheader(ctx, "Subject", INT_MAX, ""));
    RESULT(smfi_chgheader(ctx, "Subject", 1, NULL));
    RESULT(smfi_chgheader(ctx, "Subject", -1, "changed"));
    RESULT(smfi_chgheader(ctx, "", 1, "changed"));
    RESULT(smfi_chgheader(ctx, NULL, 1, "changed"));
    RESULT(smfi_chgfrom(ctx, "<a@example.org>", NULL));
    RESULT(smfi_chgfrom(ctx, "<a@example.org>", ""));
    RESULT(smfi_chgfrom(ctx, "<a@example.org>", "RET=HDRS ENVID=1"));
    RESULT(smfi_chgfrom(ctx, "", NULL));
    RESULT(smfi_chgfrom(ctx, NULL, "RET=HDRS"));
    RESULT(smfi_addrcpt(ctx, "<a@example.org>"));
    RESULT(smfi_addrcpt(ctx, "not an address"));
    RESULT(smfi_addrcpt(ctx, ""));
    RESULT(smfi_addrcpt(ctx, NULL));
    RESULT(smfi_addrcpt_par(ctx, "<a@example.org>", NULL));
    RESULT(smfi_addrcpt_par(ctx, "<a@example.org>", ""));
    RESULT(smfi_addrcpt_par(ctx, "<a@example.org>", "NOTIFY=NEVER"));
    RESULT(smfi_addrcpt_par(ctx, "", NULL));
    RESULT(smfi_addrcpt_par(ctx, NULL, NULL));
    RESULT(smfi_delrcpt(ctx, "<a@example.org>"));
    RESULT(smfi_delrcpt(ctx, ""));
    RESULT(smfi_delrcpt(ctx, NULL));
    RESULT(smfi_replacebody(ctx, body, 3));
    RESULT(smfi_replacebody(ctx, body, 0));
    RESULT(smfi_replacebody(ctx, NULL, 0));
    RESULT(smfi_replacebody(ctx, NULL, 3));
    RESULT(smfi_replacebody(ctx, body, -1));
    RESULT(smfi_replacebody(ctx, body, 65535));
    RESULT(smfi_replacebody(ctx, body, 65536));
    RESULT(smfi_replacebody(ctx, body, 70000));
    RESULT(smfi_quarantine(ctx, "a reason"));
    RESULT(smfi_quarantine(ctx, ""));
    RESULT(smfi_quarantine(ctx, NULL));
    RESULT(smfi_progress(ctx));
}

/* Prints the value of a macro, seen through each of its spellings. */
static void macro(SMFICTX *ctx, char *name)
{
    const char *value = smfi_getsymval(ctx, name);

    printf("  macro %s: %s\n", name != NULL ? name : "NULL", value != NULL ? value : "NULL");
}

/* What may be called at any time. */
static void others(SMFICTX *ctx)
{
    static char mark;

    macro(ctx, "j");
    macro(ctx, "{j}");
    macro(ctx, "i");
    macro(ctx, "{i}");
    macro(ctx, "{client_addr}");
    macro(ctx, "client_addr");
    macro(ctx, "{mail_addr}");
    macro(ctx, "{empty}");
    macro(ctx, "{unpaired}");
    macro(ctx, "{");
    macro(ctx, "{}");
    macro(ctx, "");
    macro(ctx, NULL);
    printf("  priv is mine: %d\n", smfi_getpriv(ctx) == &mark);
    RESULT(smfi_setpriv(ctx, &mark));
    printf("  priv is mine: %d\n", smfi_getpriv(ctx) == &mark);
    RESULT(smfi_setpriv(ctx, NULL));
    printf("  priv is NULL: %d\n", smfi_getpriv(ctx) == NULL);
    RESULT(smfi_setpriv(ctx, &mark));
    RESULT(smfi_setsymlist(ctx, -1, "j"));
    RESULT(smfi_setsymlist(ctx, 7, "j"));
    RESULT(smfi_setsymlist(ctx, INT_MAX, "j"));
    RESULT(smfi_setsymlist(ctx, SMFIM_CONNECT, NULL));
    RESULT(smfi_setsymlist(ctx, SMFIM_CONNECT, "j {client_addr}"));
    RESULT(smfi_setsymlist(ctx, SMFIM_CONNECT, "j"));
    RESULT(smfi_setsymlist(ctx, SMFIM_EOH, ""));
    RESULT(smfi_setsymlist(ctx, SMFIM_EOM, "i"));
}

/* SMTP replies; those that are taken are never used here: every callback goes on. */
static void replies(SMFICTX *ctx)
{
    long_line[980] = 'x';
    RESULT(smfi_setreply(ctx, "550", "5.7.1", long_line));
    RESULT(smfi_setmlreply(ctx, "550", "5.7.1", "short", long_line, (char *)NULL));
    long_line[980] = '\0';
    RESULT(smfi_setreply(ctx, "550", "5.7.1", long_line));
    RESULT(smfi_setmlreply(ctx, "550", "5.7.1", "short", long_line, (char *)NULL));
    RESULT(smfi_setreply(ctx, "550", NULL, NULL));
    RESULT(smfi_setreply(ctx, "550", NULL, "text"));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", NULL));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", ""));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", "with %s percent %"));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", "two\r\nlines"));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", "two\nlines"));
    RESULT(smfi_setreply(ctx, "550", "5.7.1", "two\rlines"));
    RESULT(smfi_setreply(ctx, NULL, "5.7.1", "text"));
    RESULT(smfi_setreply(ctx, "", "5.7.1", "text"));
    RESULT(smfi_setreply(ctx, "250", "2.0.0", "text"));
    RESULT(smfi_setreply(ctx, "350", NULL, "text"));
    RESULT(smfi_setreply(ctx, "650", NULL, "text"));
    RESULT(smfi_setreply(ctx, "55", NULL, "text"));
    RESULT(smfi_setreply(ctx, "5500", NULL, "text"));
    RESULT(smfi_setreply(ctx, "5x0", NULL, "text"));
    RESULT(smfi_setreply(ctx, "599", NULL, "text"));
    RESULT(smfi_setreply(ctx, "499", NULL, "text"));
    RESULT(smfi_setreply(ctx, "550", "4.1.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "2.1.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "3.1.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1.", "text"));
    RESULT(smfi_setreply(ctx, "550", "5..1", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.123.456", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1234.5", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1.1234", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1.1.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "5.1.1 ", "text"));
    RESULT(smfi_setreply(ctx, "550", "51.1.1", "text"));
    RESULT(smfi_setreply(ctx, "550", "", "text"));
    RESULT(smfi_setmlreply(ctx, NULL, "5.7.1", "text", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "250", "2.0.0", "text", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "550", "bad", "text", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "550", NULL, "text", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "450", NULL, "", "", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "550", "5.7.1", "one", "t\nwo", (char *)NULL));
    RESULT(smfi_setmlreply(ctx, "550", "5.7.1", "one", "t\rwo", (char *)NULL));
}

/* Calls everything and goes on. */
static sfsistat all(SMFICTX *ctx, const char *where)
{
    printf("%s\n", where);
    changes(ctx);
    others(ctx);
    replies(ctx);
    fflush(stdout);
    return SMFIS_CONTINUE;
}

/* Option negotiation. */
static sfsistat at_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
                             unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
    printf("offered %#lx %#lx %#lx %#lx, preset %#lx %#lx %#lx %#lx\n", f0, f1, f2, f3, *pf0, *pf1, *pf2, *pf3);
    *pf0 = strtoul(getenv("ACTIONS"), NULL, 16);
    *pf1 = 0;
    return all(ctx, "negotiate");
}

/* A client connects. */
static sfsistat at_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    (void)host, (void)address;
    return all(ctx, "connect");
}

/* HELO. */
static sfsistat at_helo(SMFICTX *ctx, char *name) { return (void)name, all(ctx, "helo"); }

/* MAIL. */
static sfsistat at_mail(SMFICTX *ctx, char **argv) { return (void)argv, all(ctx, "mail"); }

/* RCPT. */
static sfsistat at_rcpt(SMFICTX *ctx, char **argv) { return (void)argv, all(ctx, "rcpt"); }

/* A header line. */
static sfsistat at_header(SMFICTX *ctx, char *name, char *value)
{
    (void)name, (void)value;
    return all(ctx, "header");
}

/* The end of the header. */
static sfsistat at_eoh(SMFICTX *ctx) { return all(ctx, "eoh"); }

/* A piece of the body. */
static sfsistat at_body(SMFICTX *ctx, unsigned char *p, size_t n) { return (void)p, (void)n, all(ctx, "body"); }

/* The end of the message. */
static sfsistat at_eom(SMFICTX *ctx) { return all(ctx, "eom"); }

/* The message is given up. */
static sfsistat at_abort(SMFICTX *ctx) { return all(ctx, "abort"); }

/* An unknown command. */
static sfsistat at_unknown(SMFICTX *ctx, const char *line) { return (void)line, all(ctx, "unknown"); }

/* DATA. */
static sfsistat at_data(SMFICTX *ctx) { return all(ctx, "data"); }

/* The end of the session. */
static sfsistat at_close(SMFICTX *ctx)
{
    all(ctx, "close");
    smfi_setpriv(ctx, NULL);
    return SMFIS_CONTINUE;
}

/* Serves. */
int main(int argc, char **argv)
{
    struct smfiDesc filter = {
        "callbacks", SMFI_VERSION, 0,      at_connect, at_helo,  at_mail,    at_rcpt, at_header,
        at_eoh,      at_body,      at_eom, at_abort,   at_close, at_unknown, at_data, at_negotiate,
    };

    if (argc != 3)
        return 2;
    filter.xxfi_flags = strtoul(argv[2], NULL, 16);
    setenv("ACTIONS", argv[2], 1);
    memset(long_line, 'x', 980);
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS ||
        smfi_opensocket(1) != MI_SUCCESS)
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
