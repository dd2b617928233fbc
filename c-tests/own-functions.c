/*
 * own-functions: a program with functions of its own by the names that libmilter defines for others. They must be
 * the ones that are called, whichever way the library is linked.
 */
#include <stdio.h>

#include <libmilter/mfapi.h>

int mi_stop(void);
int sm_strlcpy(void);
int sm_strlcat(void);
int sm_strlcat2(void);
int sm_strlcpyn(void);
int sm_errstring(void);

int mi_stop(void) { return 101; }
int sm_strlcpy(void) { return 102; }
int sm_strlcat(void) { return 103; }
int sm_strlcat2(void) { return 104; }
int sm_strlcpyn(void) { return 105; }
int sm_errstring(void) { return 106; }

int main(void)
{
    struct smfiDesc filter = {.xxfi_name = "own-functions", .xxfi_version = SMFI_VERSION};

    printf("%d %d %d %d %d %d\n", mi_stop(), sm_strlcpy(), sm_strlcat(), sm_strlcat2(), sm_strlcpyn(),
           sm_errstring());
    smfi_stop();
    return smfi_register(filter) == MI_SUCCESS ? 0 : 1;
}
