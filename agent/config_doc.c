/* SPDX-License-Identifier: Apache-2.0 */
/* config_doc: the table of keys as text for people: --help, docs/config.md, modelcached-config(5).
 */
#include "agent/config.h"

static const char *shown_default(const ConfigKey *key) {
    return *key->fallback ? key->fallback : "\"\"";
}

void config_write_help(FILE *f) {
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    for (size_t i = 0; i < n; i++)
        (void)fprintf(f, "  %s (default %s)\n      %s\n      Allowed: %s.\n", keys[i].path,
                      shown_default(&keys[i]), keys[i].help,
                      config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, &keys[i]));
}

void config_write_markdown(FILE *f) {
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    (void)fputs("| key | default | allowed | SIGHUP | meaning |\n|---|---|---|---|---|\n", f);
    for (size_t i = 0; i < n; i++)
        (void)fprintf(f, "| `%s` | `%s` | %s | %s | %s |\n", keys[i].path, shown_default(&keys[i]),
                      config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, &keys[i]),
                      keys[i].live ? "reread" : "restart", keys[i].help);
}

/* roff(7): a dot or quote that begins a line, and every backslash, would be a command. */
static void write_roff(FILE *f, const char *text) {
    for (; *text; text++)
        if (*text == '\\')
            (void)fputs("\\e", f);
        else if (*text == '-')
            (void)fputs("\\-", f);
        else
            (void)fputc(*text, f);
}

void config_write_man(FILE *f) {
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    for (size_t i = 0; i < n; i++) {
        (void)fputs(".TP\n.B ", f);
        write_roff(f, keys[i].path);
        (void)fputc('\n', f);
        write_roff(f, keys[i].help);
        (void)fputs("\n.br\nAllowed: ", f);
        write_roff(f, config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, &keys[i]));
        (void)fputs(".\n.br\nDefault: ", f);
        write_roff(f, shown_default(&keys[i]));
        (void)fprintf(f, ".\n.br\nSIGHUP: %s.\n", keys[i].live ? "reread" : "needs a restart");
    }
}
