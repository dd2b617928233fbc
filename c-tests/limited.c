/*
 * limited: a filter that may not have more address space than the second argument says, in MiB; the first is the
 * socket, the third how many milliseconds its HELO callback takes. It takes frames of any size. What it logs is printed.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

static unsigned delay;

/* Stands in for the C library's function. */
void syslog(int priority, const char *format, ...)
{
    char line[500];
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) != length)
        _exit(99);
    (void)priority;
}

/* What syslog is when the caller was compiled with _FORTIFY_SOURCE. */

void __syslog_chk(int priority, int flag, const char *format, ...)
{
    (void)priority, (void)flag, (void)format;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    (void)ctx, (void)name;
    usleep(delay * 1000);
    return SMFIS_CONTINUE;
}

static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
    (void)ctx, (void)argv;
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {
        .xxfi_name = "limited",
        .xxfi_version = SMFI_VERSION,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_envfrom,
    };
    struct rlimit limit;

    if (argc != 4)
        return 64;
    limit.rlim_cur = limit.rlim_max = strtoul(argv[2], NULL, 10) << 20;
    delay = strtoul(argv[3], NULL, 10);
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 65;
    smfi_setmaxdatasize((size_t)1 << 30);
    if (setrlimit(RLIMIT_AS, &limit) != 0)
        return 66;
    return smfi_main() == MI_SUCCESS ? 0 : 67;
}
