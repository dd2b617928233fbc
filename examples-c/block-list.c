/*
 * block-list: refuses clients, senders and recipients by a list, each with a reply of its own choice.
 * The list is compiled in, to keep the example short; its names and addresses are those reserved for examples.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

#include "arguments.h"

/* Where a rule applies. */
enum place { CLIENT, SENDER, RECIPIENT };

/* What ends with `suffix` is answered by a reply of one or more lines: 5xx refuses, 4xx says "try again later". */
static const struct rule {
    enum place place;
    char *suffix;
    char *code, *extended; /* 550, 5.7.1 */
    char *lines[3];
} rules[] = {
    {CLIENT, "127.0.0.66", "554", "5.7.1", {"Your address is on our block list"}},
    {CLIENT, "192.0.2.66", "554", "5.7.1", {"Your address is on our block list"}},
    {CLIENT, ".blocked.example", "554", "5.7.1", {"No mail from your network", "Ask <postmaster> to be let in"}},
    {CLIENT, ".busy.example", "421", "4.7.0", {"Too many connections from your network"}},
    {SENDER, "@blocked.example", "550", "5.7.1",
     {"This sender is not welcome here", "because of complaints by our users.", "Ask <postmaster> if that is wrong"}},
    {SENDER, "@slow.example", "451", "4.7.1", {"Too much mail from this sender, try again later"}},
    {RECIPIENT, "nobody@example.org", "550", "5.1.1", {"There is no such person"}},
    {RECIPIENT, "retired@example.org", "551", "5.1.6", {"This person has moved", "Try <successor@example.org>"}},
    {RECIPIENT, "full@example.org", "452", "4.2.2", {"This mailbox is full"}},
};

/* Tells whether `text` ends with `suffix`; names and addresses don't care about case. */
static int ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);

    return length >= tail && strcasecmp(text + length - tail, suffix) == 0;
}

/* Answers by the first rule for `text` at this place; without one the mail goes on. */
static sfsistat judge(SMFICTX *ctx, enum place place, const char *text)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct rule *rule = &rules[i];
        char *const *line = rule->lines;
        int stored;

        if (rule->place != place || !ends_with(text, rule->suffix))
            continue;
        if (line[1] == NULL)
            stored = smfi_setreply(ctx, rule->code, rule->extended, line[0]);
        else
            stored = smfi_setmlreply(ctx, rule->code, rule->extended, line[0], line[1], line[2], (char *)NULL);
        if (stored != MI_SUCCESS)
            return SMFIS_TEMPFAIL;
        /* The stored reply is used only by the status that fits its first digit. */
        return rule->code[0] == '5' ? SMFIS_REJECT : SMFIS_TEMPFAIL;
    }
    return SMFIS_CONTINUE;
}

/* A client has connected: judge its name, then its address. */
static sfsistat at_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *peer)
{
    char address[INET6_ADDRSTRLEN] = "";
    sfsistat verdict = judge(ctx, CLIENT, host);

    if (peer != NULL && peer->sa_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)peer)->sin_addr, address, sizeof address);
    else if (peer != NULL && peer->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)peer)->sin6_addr, address, sizeof address);
    return verdict != SMFIS_CONTINUE ? verdict : judge(ctx, CLIENT, address);
}

/* Copies an address without its angle brackets; what is too long for any mail server is cut. */
static const char *bare(char copy[512], const char *address)
{
    size_t length;

    snprintf(copy, 512, "%s", *address == '<' ? address + 1 : address);
    length = strlen(copy);
    if (length > 0 && copy[length - 1] == '>')
        copy[length - 1] = '\0';
    return copy;
}

/* MAIL FROM. */
static sfsistat at_mail(SMFICTX *ctx, char **argv)
{
    char sender[512];

    return judge(ctx, SENDER, bare(sender, argv[0]));
}

/* RCPT TO: refusing one recipient leaves the others. */
static sfsistat at_rcpt(SMFICTX *ctx, char **argv)
{
    char recipient[512];

    return judge(ctx, RECIPIENT, bare(recipient, argv[0]));
}

static struct smfiDesc filter = {
    .xxfi_name = "block-list",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = SMFIF_NONE,
    .xxfi_connect = at_connect,
    .xxfi_envfrom = at_mail,
    .xxfi_envrcpt = at_rcpt,
};

/* Registers the filter, opens its socket and serves until SIGTERM. */
int main(int argc, char **argv)
{
    char *spec = socket_argument(argc, argv, "Refuses clients, senders and recipients by a list that is compiled in.");

    openlog("block-list", LOG_PID | LOG_PERROR, LOG_MAIL); /* what the library has to say goes there */
    if (smfi_register(filter) == MI_SUCCESS && smfi_setconn(spec) == MI_SUCCESS &&
        smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS)
        return 0;
    fprintf(stderr, "%s: cannot serve \"%s\": the log line above says why\n", argv[0], spec);
    return 1;
}
