/*
 * plugin: a filter in a shared object that is linked with the library; loader.c loads and unloads it. It serves one
 * session.
 */
#include <libmilter/mfapi.h>
#include <string.h>

int plugin_serve(char *name, char *socket);

/* xxfi_close: one session is enough. */
static sfsistat on_close(SMFICTX *ctx)
{
	(void)ctx;
	return smfi_stop() == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

/* xxfi_eom */
static sfsistat on_eom(SMFICTX *ctx)
{
	char name[] = "X-Plugin", value[] = "loaded";

	return smfi_addheader(ctx, name, value) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

/* Serves until the first session has ended; what smfi_main returned. */
int plugin_serve(char *name, char *socket)
{
	struct smfiDesc desc;

	memset(&desc, 0, sizeof desc);
	desc.xxfi_name = name;
	desc.xxfi_version = SMFI_VERSION;
	desc.xxfi_flags = SMFIF_ADDHDRS;
	desc.xxfi_eom = on_eom;
	desc.xxfi_close = on_close;
	if (smfi_register(desc) != MI_SUCCESS || smfi_setconn(socket) != MI_SUCCESS ||
	    smfi_opensocket(1) != MI_SUCCESS)
		return MI_FAILURE;
	return smfi_main();
}
