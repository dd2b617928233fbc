/*
 * includer: what sources in the wild do with the header, in a language that is C89 and C++98 at once. It is only
 * compiled. BOOL_BEFORE, BOOL_AFTER: <stdbool.h> is included too; SHORT_NAME: the header's name without directory.
 */
#ifdef BOOL_BEFORE
#include <stdbool.h>
#endif
#ifdef SHORT_NAME
#include <mfapi.h>
#else
#include <libmilter/mfapi.h>
#endif
#ifdef BOOL_AFTER
#include <stdbool.h>
#endif

#if !defined SMFIP_SKIP || !defined SMFIF_SETSYMLIST || !defined SMFIS_ALL_OPTS || !defined SMFIF_QUARANTINE
#error sources test these by #ifdef
#endif
#if SMFI_VERSION < 2 || SMFIF_CHGFROM != 0x40 || SMFI_PROT_VERSION != 6
#error sources compare these in the preprocessor
#endif

/* A callback as C++ sources define it: with C linkage, in the order of the struct. */
#ifdef __cplusplus
extern "C" {
#endif
static sfsistat at_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    bool known = address != 0;

    return known == true && smfi_setpriv(ctx, host) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}
static sfsistat at_unknown(SMFICTX *ctx, const char *command)
{
    (void)command;
    return smfi_getpriv(ctx) ? SMFIS_REJECT : SMFIS_CONTINUE;
}
#ifdef __cplusplus
}
#endif

/* Sources call the library through pointers too. */
int (*includer_add)(SMFICTX *, char *, char *) = smfi_addheader;
int (*includer_replace)(SMFICTX *, unsigned char *, int) = smfi_replacebody;
char *(*includer_macro)(SMFICTX_PTR, char *) = smfi_getsymval;

int includer(char *name);

/* Registers a filter by positions, as all old sources do. */
int includer(char *name)
{
    struct smfiDesc filter = {0, SMFI_VERSION, SMFIF_ADDHDRS | SMFIF_CHGBODY, at_connect, 0, 0, 0, 0, 0, 0, 0, 0,
                              0, at_unknown, 0, 0};
    smfiDesc_ptr pointer = &filter;
    smfiDesc_str copy = *pointer;
    bool remove_it = false;

    copy.xxfi_name = name;
    copy.xxfi_flags &= ~(unsigned long)SMFIF_MODBODY;
    if (smfi_register(copy) == MI_FAILURE || smfi_opensocket(remove_it) == MI_FAILURE)
        return -1;
    if (smfi_opensocket(true) == MI_FAILURE || smfi_setmlreply(0, "550", "5.7.1", name, (char *)0) == MI_SUCCESS)
        return SM_LM_VRS_MAJOR(SMFI_VERSION) + SM_LM_VRS_MINOR(SMFI_VERSION) + SM_LM_VRS_PLVL(SMFI_VERSION);
    return smfi_main();
}
