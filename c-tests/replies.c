/*
 * replies: which reply the mail server gets. Each RCPT names one of the cases below by its number; its callback sets
 * a reply, prints whether that succeeded, and refuses the recipient. Cases from 100 on: a reply of N - 100 lines.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmilter/mfapi.h>

static char line[40][16];

/* The first N lines as arguments. */
#define L1 line[0]
#define L2 L1, line[1]
#define L3 L2, line[2]
#define L4 L3, line[3]
#define L5 L4, line[4]
#define L6 L5, line[5]
#define L7 L6, line[6]
#define L8 L7, line[7]
#define L9 L8, line[8]
#define L10 L9, line[9]
#define L11 L10, line[10]
#define L12 L11, line[11]
#define L13 L12, line[12]
#define L14 L13, line[13]
#define L15 L14, line[14]
#define L16 L15, line[15]
#define L17 L16, line[16]
#define L18 L17, line[17]
#define L19 L18, line[18]
#define L20 L19, line[19]
#define L21 L20, line[20]
#define L22 L21, line[21]
#define L23 L22, line[22]
#define L24 L23, line[23]
#define L25 L24, line[24]
#define L26 L25, line[25]
#define L27 L26, line[26]
#define L28 L27, line[27]
#define L29 L28, line[28]
#define L30 L29, line[29]
#define L31 L30, line[30]
#define L32 L31, line[31]
#define L33 L32, line[32]
#define L34 L33, line[33]
#define L35 L34, line[34]
#define L36 L35, line[35]
#define L37 L36, line[36]
#define L38 L37, line[37]
#define L39 L38, line[38]
#define L40 L39, line[39]

/* smfi_setmlreply takes its lines as arguments: one call for each number of them. */
#define LINES(n) \
    case n: \
        return smfi_setmlreply(ctx, "550", "5.7.1", L##n, (char *)NULL)

/* Sets a reply of so many lines. */
static int set_lines(SMFICTX *ctx, int lines)
{
    switch (lines) {
    case 0:
        return smfi_setmlreply(ctx, "550", "5.7.1", (char *)NULL);
        LINES(1); LINES(2); LINES(3); LINES(4); LINES(5);
        LINES(6); LINES(7); LINES(8); LINES(9); LINES(10);
        LINES(11); LINES(12); LINES(13); LINES(14); LINES(15);
        LINES(16); LINES(17); LINES(18); LINES(19); LINES(20);
        LINES(21); LINES(22); LINES(23); LINES(24); LINES(25);
        LINES(26); LINES(27); LINES(28); LINES(29); LINES(30);
        LINES(31); LINES(32); LINES(33); LINES(34); LINES(35);
        LINES(36); LINES(37); LINES(38); LINES(39); LINES(40);
    default:
        return MI_FAILURE;
    }
}

/* Sets the reply of a case. */
static int set(SMFICTX *ctx, int number)
{
    switch (number) {
    case 0:
        return smfi_setreply(ctx, "550", "5.7.1", "text");
    case 1:
        return smfi_setreply(ctx, "451", "4.7.1", "text");
    case 2:
        return smfi_setreply(ctx, "550", NULL, "no extended code");
    case 3:
        return smfi_setreply(ctx, "550", "5.1.1", NULL);
    case 4:
        return smfi_setreply(ctx, "550", NULL, NULL);
    case 5:
        return smfi_setreply(ctx, "550", "4.1.1", "classes differ");
    case 6:
        return smfi_setreply(ctx, "550", "5.7.1", "100%s %d %%");
    case 7:
        return smfi_setreply(ctx, "421", "4.3.2", "closing");
    case 8:
        return smfi_setreply(ctx, "550", "5.7.1", "");
    case 9:
        return smfi_setreply(ctx, "550", "bad", "never seen");
    case 10:
        return smfi_setmlreply(ctx, "550", NULL, "one", "two", (char *)NULL);
    case 11:
        return smfi_setmlreply(ctx, "450", NULL, "one", "two", (char *)NULL);
    case 12:
        return smfi_setmlreply(ctx, "550", "5.7.1", "", "50% %s", "", (char *)NULL);
    case 13: /* nothing behind NULL counts */
        return smfi_setmlreply(ctx, "550", "5.7.1", "one", (char *)NULL, "two", "three", "four", (char *)NULL);
    case 14:
        return smfi_setmlreply(ctx, "550", "5.7.1", "one", "two", "three", (char *)NULL, (char *)1, (char *)2);
    case 15: /* a failed call leaves the reply before it */
        return smfi_setreply(ctx, "550", "5.7.1", "stays") + smfi_setreply(ctx, "250", NULL, "does not come");
    case 16:
        return smfi_setreply(ctx, "550", "5.7.1", "is replaced") + smfi_setreply(ctx, "551", "5.7.2", "replaces");
    default:
        return number < 100 ? MI_SUCCESS : set_lines(ctx, number - 100);
    }
}

/* Sets the reply that RCPT names, and refuses: by the second argument for good, or for now. */
static sfsistat at_rcpt(SMFICTX *ctx, char **argv)
{
    printf("%s: %d\n", argv[0], set(ctx, atoi(argv[0])));
    fflush(stdout);
    return argv[1] != NULL && strcmp(argv[1], "later") == 0 ? SMFIS_TEMPFAIL : SMFIS_REJECT;
}

/* Serves. */
int main(int argc, char **argv)
{
    struct smfiDesc filter = {.xxfi_name = "replies", .xxfi_version = SMFI_VERSION, .xxfi_envrcpt = at_rcpt};

    if (argc != 2)
        return 2;
    for (int i = 0; i < 40; i++)
        snprintf(line[i], sizeof line[i], "line %d", i + 1);
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS ||
        smfi_opensocket(1) != MI_SUCCESS)
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
