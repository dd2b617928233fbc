/*
 * raise: a filter whose HELO callback raises an exception that nothing catches, as a language without a runtime of C++
 * would. The first argument is the socket; the second is "raise", and a line is printed afterwards, or "exit", and the
 * callback's thread ends.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unwind.h>

#include <libmilter/mfapi.h>

static const char *how;

/* Stands in for the C library's function. */
void syslog(int priority, const char *format, ...)
{
    va_list arguments;

    (void)priority;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    puts("");
    fflush(stdout);
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    static struct _Unwind_Exception exception;

    (void)ctx, (void)name;
    if (strcmp(how, "exit") == 0)
        pthread_exit(NULL);
    memcpy(&exception.exception_class, "MILTTEST", 8);
    /* It returns if no frame catches. What it returns says little: some processors' unwinders lose the value. */
    (void)_Unwind_RaiseException(&exception);
    puts("nobody catches it");
    fflush(stdout);
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    const struct rlimit none = {0, 0};
    struct smfiDesc filter = {
        .xxfi_name = "raise",
        .xxfi_version = SMFI_VERSION,
        .xxfi_helo = on_helo,
    };

    if (argc < 3)
        return 64;
    how = argv[2];
    setrlimit(RLIMIT_CORE, &none);
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 65;
    return smfi_main() == MI_SUCCESS ? 0 : 67;
}
