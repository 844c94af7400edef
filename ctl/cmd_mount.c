/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_mount: cache-ctl mount and umount, an artifact on a directory of the node. */
#include "base/fs.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

#include <limits.h>

enum { OPTION_SUB_PATH = 1000, OPTION_PLATFORM, OPTION_INCLUDE, OPTION_EXCLUDE, OPTION_EXEC };

static const struct option options[] = {
    { "sub-path", required_argument, NULL, OPTION_SUB_PATH },
    { "platform", required_argument, NULL, OPTION_PLATFORM },
    { "include", required_argument, NULL, OPTION_INCLUDE },
    { "exclude", required_argument, NULL, OPTION_EXCLUDE },
    { "exec", no_argument, NULL, OPTION_EXEC },
    { NULL, 0, NULL, 0 },
};

typedef struct MountArguments {
    char *sub_path, *platform, *include, *exclude; /* borrowed from argv */
    bool exec;
} MountArguments;

static int take_option(void *arg, int val, const char *value) {
    MountArguments *a = arg;

    if (val == OPTION_SUB_PATH)
        a->sub_path = (char *)value;
    else if (val == OPTION_PLATFORM)
        a->platform = (char *)value;
    else if (val == OPTION_INCLUDE)
        a->include = (char *)value;
    else if (val == OPTION_EXCLUDE)
        a->exclude = (char *)value;
    else
        a->exec = true;
    return 0;
}

/* The daemon works with absolute paths without symlinks; people do not have to. */
static CtlExit resolve_directory(const char *directory, char **ret) {
    *ret = realpath(directory, NULL);
    if (!*ret) {
        fprintf(stderr, "cache-ctl: %s: %s; name an existing directory\n", directory,
                strerror(errno));
        return errno == ENOENT ? CTL_EXIT_NOT_FOUND : CTL_EXIT_FAILED;
    }
    return CTL_EXIT_DONE;
}

/* Moves the last component of `path` before `rest`.  False: there is none, or it has no name. */
static bool move_component(char *path, char **rest) {
    char *slash = strrchr(path, '/'), *longer;

    if (!slash || streq(slash, "/..") || streq(slash, "/."))
        return false;
    longer = xasprintf("%s%s", slash[1] ? slash : "", *rest);
    free(*rest);
    *rest = longer;
    *slash = '\0';
    return true;
}

/* The directory may be gone, and its mount with it, while the daemon still has the record: then
 * what is left of the path is resolved. */
static CtlExit resolve_mounted(const char *directory, char **ret) {
    _cleanup_free_ char *here = *directory == '/' ? xstrdup("") : realpath(".", NULL);
    _cleanup_free_ char *path = xasprintf("%s/%s", here ? here : "", directory);
    _cleanup_free_ char *rest = xstrdup(""), *real = NULL;

    while (!(real = realpath(*path ? path : "/", NULL)))
        if (errno != ENOENT || !move_component(path, &rest))
            return resolve_directory(directory, ret);
    *ret = xasprintf("%s%s", streq(real, "/") && *rest ? "" : real, rest);
    return CTL_EXIT_DONE;
}

typedef struct MountView {
    const Ctl *ctl;
    const char *directory;
} MountView;

static CtlExit on_mounted(void *arg, const uint8_t *message, size_t n) {
    const MountView *v = arg;
    Modelcached__Control__MountResponse *m = CTL_UNPACK(mount_response, message, n);

    if (!m)
        return ctl_not_understood();
    if (v->ctl->json)
        output_json(json_pack("{s:o,s:o}", "digest", output_json_string(m->digest), "directory",
                              output_json_string(v->directory)),
                    false);
    else
        printf("%s is mounted read-only on %s\n", m->digest, v->directory);
    modelcached__control__mount_response__free_unpacked(m, NULL);
    return CTL_EXIT_DONE;
}

static CtlExit run_mount(const Ctl *ctl, void *arg, char **arguments, int n) {
    const MountArguments *a = arg;
    Modelcached__Control__MountRequest request = MODELCACHED__CONTROL__MOUNT_REQUEST__INIT;
    _cleanup_free_ char *directory = NULL;
    MountView view = { .ctl = ctl };
    CtlCall call = { "Mount", &request.base, on_mounted, NULL, NULL, &view };
    CtlExit exit = resolve_directory(arguments[1], &directory);

    (void)n;
    if (exit != CTL_EXIT_DONE)
        return exit;
    view.directory = directory;
    request.reference = arguments[0];
    request.directory = directory;
    request.sub_path = a->sub_path ? a->sub_path : request.sub_path;
    request.platform = a->platform ? a->platform : request.platform;
    request.include = a->include ? a->include : request.include;
    request.exclude = a->exclude ? a->exclude : request.exclude;
    request.exec = a->exec;
    return ctl_call(ctl, &call);
}

static CtlExit on_unmounted(void *arg, const uint8_t *message, size_t n) {
    const MountView *v = arg;

    (void)message; /* the answer is empty */
    (void)n;
    if (v->ctl->json)
        output_json(json_pack("{s:o}", "directory", output_json_string(v->directory)), false);
    else
        printf("%s is unmounted\n", v->directory);
    return CTL_EXIT_DONE;
}

static CtlExit run_umount(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__UnmountRequest request = MODELCACHED__CONTROL__UNMOUNT_REQUEST__INIT;
    _cleanup_free_ char *directory = NULL;
    MountView view = { .ctl = ctl };
    CtlCall call = { "Unmount", &request.base, on_unmounted, NULL, NULL, &view };
    CtlExit exit = resolve_mounted(arguments[0], &directory);

    (void)arg;
    (void)n;
    if (exit != CTL_EXIT_DONE)
        return exit;
    view.directory = directory;
    request.directory = directory;
    return ctl_call(ctl, &call);
}

static MountArguments mount_arguments;

const CtlCommand ctl_mount = {
    .name = "mount",
    .arguments = "REFERENCE DIRECTORY",
    .summary = "mount an artifact of the cache read-only",
    .help =
        "Mounts an artifact that is in the cache on an empty directory, as a pod would see it. "
        "The mount stays when\n"
        "the daemon ends, and protects the artifact from removal until `cache-ctl umount`.\n\n"
        "  cache-ctl mount registry.example/team/llama:8b /mnt/llama\n\n"
        "Options of mount:\n"
        "      --sub-path PATH          only this directory of the artifact\n"
        "      --platform OS/ARCH       of a name that stands for several (default: the node's)\n"
        "      --include PATTERNS       only these files, as in cache-ctl pull\n"
        "      --exclude PATTERNS       without these\n"
        "      --exec                   programs in it may be run\n",
    .options = options,
    .n_arguments_min = 2,
    .n_arguments_max = 2,
    .option = take_option,
    .run = run_mount,
    .arg = &mount_arguments,
};

const CtlCommand ctl_umount = {
    .name = "umount",
    .arguments = "DIRECTORY",
    .summary = "undo a mount",
    .help = "Unmounts what `cache-ctl mount` mounted. The directory stays; when it is gone "
            "already, the mount is forgotten.\n\n"
            "  cache-ctl umount /mnt/llama\n",
    .n_arguments_min = 1,
    .n_arguments_max = 1,
    .run = run_umount,
};
