/*
 * What each example makes of its command line, on any libmilter: the one argument is the socket to listen on.
 */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Prints how a filter is called, and what it does. */
static void print_usage(FILE *stream, const char *program, const char *purpose)
{
    fprintf(stream,
            "usage: %s SOCKET\n"
            "\n"
            "%s\n"
            "\n"
            "SOCKET is where the mail server connects to:\n"
            "  unix:/run/filter.sock    a unix socket; an old one that nobody serves is replaced\n"
            "  inet:8891@localhost      a TCP port, on one address\n"
            "  inet6:8891               a TCP port, on every address\n"
            "  fd:3                     an open socket, as systemd passes it\n"
            "\n"
            "It serves in the foreground until SIGTERM, and logs to standard error and to syslog.\n",
            program, purpose);
}

/* Returns the path of a unix socket, or NULL for any other kind. */
static const char *unix_path(const char *spec)
{
    const char *colon = strchr(spec, ':');

    if (colon == NULL)
        return spec;
    if (colon == spec || strncasecmp(spec, "unix:", 5) == 0 || strncasecmp(spec, "local:", 6) == 0)
        return colon + 1;
    return NULL;
}

/* Tells whether a process listens on this unix socket. smfi_opensocket(1) would take the path away from it. */
static int is_served(const char *path)
{
    struct sockaddr_un address;
    int probe, served;

    if (strlen(path) >= sizeof address.sun_path)
        return 0;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, path);
    if ((probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        return 0;
    /* EAGAIN: it has more connections waiting than it has room for. */
    served = connect(probe, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(probe);
    return served;
}

/* Returns the SOCKET argument; ends the program after --help, and on arguments that cannot be meant. */
static char *socket_argument(int argc, char **argv, const char *purpose)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_usage(stdout, argv[0], purpose);
        exit(0);
    }
    if (argc != 2 || argv[1][0] == '-') {
        if (argc == 2)
            fprintf(stderr, "%s: there is no option \"%s\"\n", argv[0], argv[1]);
        print_usage(stderr, argv[0], purpose);
        exit(2);
    }
    if (argv[1][0] == '\0') {
        fprintf(stderr, "%s: SOCKET is empty; try \"%s --help\"\n", argv[0], argv[0]);
        exit(2);
    }
    if (unix_path(argv[1]) != NULL && is_served(unix_path(argv[1]))) {
        fprintf(stderr, "%s: another process serves the socket \"%s\"\n", argv[0], argv[1]);
        exit(1);
    }
    return argv[1];
}

#endif
