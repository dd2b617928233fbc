/*
 * types: every type of the API, written out here once more. It compiles only against a header that says the same,
 * and prints the layout, for comparison between two headers.
 */
#include <stddef.h>
#include <stdio.h>

#include <libmilter/mfapi.h>

#define SAME(thing, type) _Static_assert(__builtin_types_compatible_p(__typeof__(thing), type), #thing)
#define MEMBER(name) (((struct smfiDesc *)0)->name)

typedef SMFICTX *Ctx;

SAME(SMFICTX, struct smfi_str);
SAME(SMFICTX_PTR, struct smfi_str *);
SAME(sfsistat, int);
SAME(smfiDesc_str, struct smfiDesc);
SAME(smfiDesc_ptr, struct smfiDesc *);

SAME(smfi_register, int(struct smfiDesc));
SAME(smfi_main, int(void));
SAME(smfi_stop, int(void));
SAME(smfi_setconn, int(char *));
SAME(smfi_settimeout, int(int));
SAME(smfi_setbacklog, int(int));
SAME(smfi_setdbg, int(int));
SAME(smfi_opensocket, int(bool));
SAME(smfi_setmaxdatasize, size_t(size_t));
SAME(smfi_version, int(unsigned int *, unsigned int *, unsigned int *));
SAME(smfi_getsymval, char *(Ctx, char *));
SAME(smfi_getpriv, void *(Ctx));
SAME(smfi_setpriv, int(Ctx, void *));
SAME(smfi_setreply, int(Ctx, char *, char *, char *));
SAME(smfi_setmlreply, int(Ctx, const char *, const char *, ...));
SAME(smfi_setsymlist, int(Ctx, int, char *));
SAME(smfi_addheader, int(Ctx, char *, char *));
SAME(smfi_chgheader, int(Ctx, char *, int, char *));
SAME(smfi_insheader, int(Ctx, int, char *, char *));
SAME(smfi_chgfrom, int(Ctx, char *, char *));
SAME(smfi_addrcpt, int(Ctx, char *));
SAME(smfi_addrcpt_par, int(Ctx, char *, char *));
SAME(smfi_delrcpt, int(Ctx, char *));
SAME(smfi_replacebody, int(Ctx, unsigned char *, int));
SAME(smfi_quarantine, int(Ctx, char *));
SAME(smfi_progress, int(Ctx));

SAME(MEMBER(xxfi_name), char *);
SAME(MEMBER(xxfi_version), int);
SAME(MEMBER(xxfi_flags), unsigned long);
SAME(MEMBER(xxfi_connect), sfsistat (*)(Ctx, char *, _SOCK_ADDR *));
SAME(MEMBER(xxfi_helo), sfsistat (*)(Ctx, char *));
SAME(MEMBER(xxfi_envfrom), sfsistat (*)(Ctx, char **));
SAME(MEMBER(xxfi_envrcpt), sfsistat (*)(Ctx, char **));
SAME(MEMBER(xxfi_header), sfsistat (*)(Ctx, char *, char *));
SAME(MEMBER(xxfi_eoh), sfsistat (*)(Ctx));
SAME(MEMBER(xxfi_body), sfsistat (*)(Ctx, unsigned char *, size_t));
SAME(MEMBER(xxfi_eom), sfsistat (*)(Ctx));
SAME(MEMBER(xxfi_abort), sfsistat (*)(Ctx));
SAME(MEMBER(xxfi_close), sfsistat (*)(Ctx));
SAME(MEMBER(xxfi_unknown), sfsistat (*)(Ctx, const char *));
SAME(MEMBER(xxfi_data), sfsistat (*)(Ctx));
SAME(MEMBER(xxfi_negotiate),
     sfsistat (*)(Ctx, unsigned long, unsigned long, unsigned long, unsigned long, unsigned long *,
                  unsigned long *, unsigned long *, unsigned long *));

#define SHOW(name) printf("%s %zu %zu\n", #name, offsetof(struct smfiDesc, name), sizeof MEMBER(name))

/* Prints the layout of the one struct of the API. */
int main(void)
{
    SHOW(xxfi_name);
    SHOW(xxfi_version);
    SHOW(xxfi_flags);
    SHOW(xxfi_connect);
    SHOW(xxfi_helo);
    SHOW(xxfi_envfrom);
    SHOW(xxfi_envrcpt);
    SHOW(xxfi_header);
    SHOW(xxfi_eoh);
    SHOW(xxfi_body);
    SHOW(xxfi_eom);
    SHOW(xxfi_abort);
    SHOW(xxfi_close);
    SHOW(xxfi_unknown);
    SHOW(xxfi_data);
    SHOW(xxfi_negotiate);
    printf("struct smfiDesc %zu %zu\n", sizeof(struct smfiDesc), _Alignof(struct smfiDesc));
    return 0;
}
