/* SPDX-License-Identifier: Apache-2.0 */
/* memory: how much of it the page cache of this process may still take. */
#include "base/memory.h"

#include "base/fs.h"
#include "base/parse.h"

#include <fcntl.h>

static char *read_text(const char *folder, const char *name) {
    _cleanup_free_ char *path = xasprintf("%s/%s", folder, name);
    char *text = NULL;

    return fs_read_file(AT_FDCWD, path, KiB(64), &text, NULL, NULL) < 0 ? NULL : text;
}

/* The number behind `name` at the begin of a line; UINT64_MAX: there is none. */
static uint64_t field(const char *text, const char *name) {
    size_t n = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        _cleanup_free_ char *digits = NULL;
        uint64_t value;

        line += *line == '\n';
        if (strncmp(line, name, n) != 0)
            continue;
        line += n + strspn(line + n, " \t");
        digits = xstrndup(line, strspn(line, "0123456789"));
        return parse_u64(digits, &value) == 0 ? value : UINT64_MAX;
    }
    return UINT64_MAX;
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

static uint64_t room_of_machine(const char *proc) {
    _cleanup_free_ char *text = read_text(proc, "meminfo");
    uint64_t total = text ? field(text, "MemTotal:") : UINT64_MAX;
    uint64_t available = text ? field(text, "MemAvailable:") : UINT64_MAX;

    return total == UINT64_MAX || available == UINT64_MAX ? UINT64_MAX
                                                          : less(available, total / 10) << 10;
}

/* "max" is no number. */
static uint64_t limit_of(const char *folder) {
    _cleanup_free_ char *max = read_text(folder, "memory.max");
    _cleanup_free_ char *high = read_text(folder, "memory.high");

    return MIN(max ? field(max, "") : UINT64_MAX, high ? field(high, "") : UINT64_MAX);
}

static uint64_t room_of_cgroup(const char *folder) {
    _cleanup_free_ char *current = read_text(folder, "memory.current");
    _cleanup_free_ char *stat = read_text(folder, "memory.stat");
    uint64_t limit = limit_of(folder), used, cache;

    if (limit == UINT64_MAX || !current || !stat)
        return UINT64_MAX;
    used = field(current, "");
    cache = field(stat, "file ");
    if (used == UINT64_MAX || cache == UINT64_MAX)
        return UINT64_MAX;
    return less(limit - limit / 10, less(used, cache));
}

uint64_t memory_room(const char *proc, const char *cgroup) {
    _cleanup_free_ char *text = read_text(proc, "self/cgroup"), *path = NULL;
    uint64_t room = room_of_machine(proc);
    const char *own = "";

    for (const char *line = text; line && !*own; line = strchr(line, '\n')) {
        line += *line == '\n';
        own = startswith(line, "0::") ? line + strlen("0::") : "";
    }
    path = xstrndup(own, strcspn(own, "\n"));
    for (char *slash = path;; *slash = '\0') {
        _cleanup_free_ char *folder = xasprintf("%s%s", cgroup, path);

        room = MIN(room, room_of_cgroup(folder));
        slash = strrchr(path, '/');
        if (!slash)
            return room;
    }
}
