/*
 * macros: a filter that cuts up the values of macros where they stand, as strtok(3) does, and then looks for the
 * others. The argument is the socket.
 */
#include <stdio.h>
#include <string.h>

#include <libmilter/mfapi.h>

/* Prints what a macro is, and gives it. */
static char *look(SMFICTX *ctx, const char *name)
{
    char *value = smfi_getsymval(ctx, (char *)name);

    printf("%s=%s\n", name, value ? value : "NULL");
    fflush(stdout);
    return value;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    (void)name;
    char *words = look(ctx, "{words}");

    while (strtok(words, " ") != NULL)
        words = NULL;
    look(ctx, "{words}");
    look(ctx, "{behind}");
    look(ctx, "two");
    look(ctx, "three");
    look(ctx, "j");
    look(ctx, "{empty}");
    look(ctx, "{unpaired}");
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {.xxfi_name = "macros", .xxfi_version = SMFI_VERSION, .xxfi_helo = on_helo};

    if (argc != 2 || smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 64;
    return smfi_main() == MI_SUCCESS ? 0 : 65;
}
