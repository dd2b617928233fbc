/*
 * old-struct: a filter that was built against the header of an old version, whose struct ended earlier. It declares
 * that struct itself. It is passed by value, so that behind it in memory lies whatever follows: here a second
 * argument, full of callbacks that must never be called. The first argument is the version, the second the socket.
 */
#include <stdio.h>
#include <stdlib.h>

#define VERSION_2                                                                                                    \
    char *name;                                                                                                      \
    int version;                                                                                                     \
    unsigned long flags;                                                                                             \
    int (*connect)(void *, char *, void *);                                                                          \
    int (*helo)(void *, char *);                                                                                     \
    int (*envfrom)(void *, char **);                                                                                 \
    int (*envrcpt)(void *, char **);                                                                                 \
    int (*header)(void *, char *, char *);                                                                           \
    int (*eoh)(void *);                                                                                              \
    int (*body)(void *, unsigned char *, size_t);                                                                    \
    int (*eom)(void *);                                                                                              \
    int (*abort)(void *);                                                                                            \
    int (*close)(void *)

struct version2 {
    VERSION_2;
};

struct version3 {
    VERSION_2;
    int (*unknown)(void *, const char *);
};

struct version4 {
    VERSION_2;
    int (*unknown)(void *, const char *);
    int (*data)(void *);
};

/* What lies behind the struct. */
struct trap {
    int (*callbacks[8])(void *);
};

/* The library's functions, as the old header had them; the trap only makes room behind the struct. */
int register2(struct version2, struct trap) __asm__("smfi_register");
int register3(struct version3, struct trap) __asm__("smfi_register");
int register4(struct version4, struct trap) __asm__("smfi_register");
int smfi_setconn(char *);
int smfi_opensocket(int);
int smfi_main(void);

/* Called if the library reads past the struct. */
static int sprung(void *ctx)
{
    (void)ctx;
    printf("a callback behind the struct was called\n");
    fflush(stdout);
    return 0;
}

/* Tells that a callback ran. */
static int tell(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
    return 0;
}

/* HELO. */
static int at_helo(void *ctx, char *name) { return (void)ctx, (void)name, tell("helo"); }

/* MAIL. */
static int at_mail(void *ctx, char **argv) { return (void)ctx, (void)argv, tell("mail"); }

/* The end of the message. */
static int at_eom(void *ctx) { return (void)ctx, tell("eom"); }

/* The end of the session. */
static int at_close(void *ctx) { return (void)ctx, tell("close"); }

/* An unknown command. */
static int at_unknown(void *ctx, const char *line) { return (void)ctx, (void)line, tell("unknown"); }

/* DATA. */
static int at_data(void *ctx) { return (void)ctx, tell("data"); }

#define CALLBACKS(v)                                                                                                 \
    .name = "old", .version = v, .flags = 0, .helo = at_helo, .envfrom = at_mail, .eom = at_eom, .close = at_close

/* Registers the struct of a version. */
static int reg(int version)
{
    struct trap trap;
    struct version2 two = {CALLBACKS(2)};
    struct version3 three = {CALLBACKS(3), .unknown = at_unknown};
    struct version4 four = {CALLBACKS(4), .unknown = at_unknown, .data = at_data};

    for (size_t i = 0; i < sizeof trap.callbacks / sizeof *trap.callbacks; i++)
        trap.callbacks[i] = sprung;
    switch (version) {
    case 2:
        return register2(two, trap);
    case 3:
        return register3(three, trap);
    default:
        return register4(four, trap);
    }
}

/* Serves. */
int main(int argc, char **argv)
{
    if (argc != 3 || reg(atoi(argv[1])) != 0 || smfi_setconn(argv[2]) != 0 || smfi_opensocket(1) != 0)
        return 1;
    return smfi_main() == 0 ? 0 : 1;
}
