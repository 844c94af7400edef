/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_main: replays a fuzz target's corpus, file by file, where libFuzzer is not linked in. */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Gives the target an allocation of exactly the input's size, so that ASan sees a read past its
 * end. */
static void replay(int dir_fd, const char *name) {
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *data;

    if (fd < 0 || fstat(fd, &st) < 0)
        err(EXIT_FAILURE, "%s", name);
    if (!S_ISREG(st.st_mode)) {
        (void)close(fd);
        return;
    }
    data = malloc((size_t)st.st_size);
    if (!data && st.st_size > 0)
        err(EXIT_FAILURE, "%s", name);
    if (read(fd, data, (size_t)st.st_size) != st.st_size)
        err(EXIT_FAILURE, "read %s", name);
    (void)close(fd);
    (void)printf("%s\n", name);
    (void)LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
}

int main(int argc, char **argv) {
    int n = 0;
    DIR *dir;

    if (argc != 2)
        errx(EXIT_FAILURE, "usage: %s CORPUS-DIRECTORY", argv[0]);
    dir = opendir(argv[1]);
    if (!dir)
        err(EXIT_FAILURE, "%s", argv[1]);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        replay(dirfd(dir), entry->d_name);
        n++;
    }
    (void)closedir(dir);
    (void)printf("%d inputs replayed\n", n);
    if (n == 0)
        errx(EXIT_FAILURE, "%s has no input: a fuzz target needs a corpus", argv[1]);
    return EXIT_SUCCESS;
}
