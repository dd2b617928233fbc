/*
 * loader: a program that does not know the library. It loads the shared object named by the first argument, lets it
 * serve one session at the socket named by the second, unloads it, and does so again, three times in all.
 */
#include <dlfcn.h>
#include <stdio.h>

/* Loads, serves, unloads; prints what came of it. */
int main(int argc, char **argv)
{
	int (*serve)(char *name, char *socket);
	void *plugin;
	int round;

	if (argc != 3)
		return 64;
	for (round = 1; round <= 3; round++) {
		plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
		if (plugin == NULL) {
			fprintf(stderr, "%s\n", dlerror());
			return 70;
		}
		*(void **)&serve = dlsym(plugin, "plugin_serve");
		if (serve == NULL)
			return 71;
		printf("served %d\n", serve(argv[0], argv[2]));
		printf("unloaded %d\n", dlclose(plugin));
		fflush(stdout);
	}
	return 0;
}
