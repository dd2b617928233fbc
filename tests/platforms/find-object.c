/*
 * find-object: tells an unwinder that was made for glibc where the tables of a function are. See `run`.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>

/* glibc's struct dl_find_object: its public type, from <dlfcn.h>. */
struct found {
    unsigned long long flags;
    void *begin, *end;
    struct link_map *map;
    void *tables;
    unsigned long long reserved[7];
};

struct search {
    ElfW(Addr) address;
    struct found *found;
};

int _dl_find_object(void *address, struct found *found);

/* Whether a loaded object has the address; 1 ends the search. */
static int look(struct dl_phdr_info *object, size_t size, void *argument)
{
    const struct search *search = argument;
    const ElfW(Phdr) *code = NULL, *tables = NULL;

    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type == PT_LOAD && search->address - (object->dlpi_addr + part->p_vaddr) < part->p_memsz)
            code = part;
        if (part->p_type == PT_GNU_EH_FRAME)
            tables = part;
    }
    if (code == NULL || tables == NULL)
        return 0;
    *search->found = (struct found){
        .begin = (char *)object->dlpi_addr + code->p_vaddr,
        .end = (char *)object->dlpi_addr + code->p_vaddr + code->p_memsz,
        .tables = (char *)object->dlpi_addr + tables->p_vaddr,
    };
    return 1;
}

/* 0, and what was found, or -1. */
int _dl_find_object(void *address, struct found *found)
{
    struct search search = {(ElfW(Addr))address, found};

    return dl_iterate_phdr(look, &search) == 1 ? 0 : -1;
}
