/*
 * Loaded before Sendmail, so that it neither needs nor disturbs anything of the machine that it runs on: it gets a host
 * name of its own (with an unqualified one, as test machines have, it would sleep for a minute), knows the few hosts
 * of the tests and asks no DNS server, and writes its log to the file named by SENDMAIL_LOG, not the system's log.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    char *name, *address;
} known[] = {{"localhost", "127.0.0.1"}, {"mail.blocked.example", "127.0.0.70"}};

static char *log_path;

/* Remembers the log's path: Sendmail clears its environment. */
__attribute__((constructor)) static void remember_log_path(void)
{
    const char *path = getenv("SENDMAIL_LOG");

    log_path = path != NULL ? strdup(path) : NULL;
}

/* The name of this host. */
int gethostname(char *name, size_t size)
{
    return (size_t)snprintf(name, size, "mx.example.org") < size ? 0 : -1;
}

/* The answer to a question about the host with this number in the table; none, when it has no such number. */
static struct hostent *answer(size_t number)
{
    static struct in_addr address;
    static char *no_aliases[] = {NULL}, *addresses[] = {(char *)&address, NULL};
    static struct hostent host = {
        .h_aliases = no_aliases, .h_addrtype = AF_INET, .h_length = sizeof address, .h_addr_list = addresses};

    if (number == sizeof known / sizeof *known) {
        h_errno = HOST_NOT_FOUND;
        return NULL;
    }
    host.h_name = known[number].name;
    inet_pton(AF_INET, known[number].address, &address);
    return &host;
}

/* Finds a host by its name; addresses written as text are for the real function. */
struct hostent *gethostbyname2(const char *name, int family)
{
    struct hostent *(*real)(const char *, int);
    unsigned char address[sizeof(struct in6_addr)];
    size_t number = 0;

    if (inet_pton(family, name, address) == 1) {
        *(void **)&real = dlsym(RTLD_NEXT, "gethostbyname2");
        return real(name, family);
    }
    while (number < sizeof known / sizeof *known && (family != AF_INET || strcmp(name, known[number].name) != 0))
        number++;
    return answer(number);
}

/* Finds a host by its address. */
struct hostent *gethostbyaddr(const void *address, socklen_t length, int family)
{
    char text[INET6_ADDRSTRLEN] = "";
    size_t number = 0;

    (void)length;
    inet_ntop(family, address, text, sizeof text);
    while (number < sizeof known / sizeof *known && strcmp(text, known[number].address) != 0)
        number++;
    return answer(number);
}

/* Appends one line to the log; this is what syslog(3) is in a program compiled with _FORTIFY_SOURCE. */
void __syslog_chk(int priority, int flag, const char *format, ...)
{
    FILE *log = log_path != NULL ? fopen(log_path, "a") : NULL;
    va_list arguments;

    (void)priority, (void)flag;
    if (log == NULL)
        return;
    va_start(arguments, format);
    vfprintf(log, format, arguments);
    va_end(arguments);
    fputc('\n', log);
    fclose(log);
}
