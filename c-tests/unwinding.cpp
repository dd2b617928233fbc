/*
 * unwinding: a filter whose callbacks do not return. The first argument is the socket, the second says how they leave
 * ("throw", "exit"), the third which of them does ("helo", "close"). What it logs is printed.
 */
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <stdexcept>
#include <sys/resource.h>

#include <libmilter/mfapi.h>

static const char *how, *which;

/* Stands in for the C library's function. */
extern "C" void syslog(int, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    puts("");
    fflush(stdout);
}

/* Something with a destructor is on the way out. */
struct Something {
    ~Something() { puts("left"); fflush(stdout); }
};

/* Leaves a callback, if it is the one. */
static sfsistat leave(const char *callback)
{
    Something something;

    if (strcmp(callback, which) != 0)
        return SMFIS_CONTINUE;
    if (strcmp(how, "throw") == 0)
        throw std::runtime_error("nobody catches this");
    pthread_exit(NULL);
}

static sfsistat on_helo(SMFICTX *, char *) { return leave("helo"); }
static sfsistat on_close(SMFICTX *) { return leave("close"); }

int main(int argc, char **argv)
{
    const struct rlimit none = {0, 0};
    struct smfiDesc filter = {};

    if (argc != 4)
        return 64;
    how = argv[2];
    which = argv[3];
    setrlimit(RLIMIT_CORE, &none);
    filter.xxfi_name = const_cast<char *>("unwinding");
    filter.xxfi_version = SMFI_VERSION;
    filter.xxfi_helo = on_helo;
    filter.xxfi_close = on_close;
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 65;
    return smfi_main() == MI_SUCCESS ? 0 : 67;
}
