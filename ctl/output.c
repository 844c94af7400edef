/* SPDX-License-Identifier: Apache-2.0 */
/* output: tables for people, JSON for programs. */
#include "ctl/output.h"

#include "base/loop.h"

#include <time.h>
#include <wchar.h>

struct OutputTable {
    const char *const *columns; /* borrowed */
    size_t n_columns;
    char **cells; /* row after row */
    size_t n_cells, alloc_cells;
};

void output_json(json_t *document, bool line) {
    (void)json_dumpf(document, stdout,
                     (line ? JSON_COMPACT : JSON_INDENT(2)) |
                         JSON_REAL_PRECISION(9)); /* a closed stdout is seen at exit */
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
    json_decref(document);
}

void output_json_begin(json_t *document, const char *name) {
    char *text = json_dumps(document, JSON_INDENT(2)), *end = text ? strrchr(text, '\n') : NULL;

    assert(end); /* an object with members; without memory jansson's own calls failed before */
    printf("%.*s,\n  \"%s\": [", (int)(end - text), text, name);
    free(text);
    json_decref(document);
}

void output_json_item(json_t *item, bool first) {
    printf("%s\n    ", first ? "" : ",");
    (void)json_dumpf(item, stdout, JSON_COMPACT); /* as above */
    json_decref(item);
}

void output_json_end(bool first) {
    printf("%s]\n}\n", first ? "" : "\n  ");
    (void)fflush(stdout);
}

json_t *output_json_string(const char *s) {
    json_t *string = isempty(s) ? NULL : json_string(s);
    return string ? string : json_null();
}

json_t *output_json_time(int64_t usec) {
    char text[40], out[64];
    time_t seconds = (time_t)(usec / (int64_t)USEC_PER_SEC);
    struct tm tm;

    if (usec <= 0 || !gmtime_r(&seconds, &tm))
        return json_null();
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out, sizeof(out), "%s.%06dZ", text, (int)(usec % (int64_t)USEC_PER_SEC));
    return json_string(out);
}

json_t *output_json_strings(char *const *strings, size_t n) {
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(array, output_json_string(strings[i]));
    return array;
}

char *output_clean(const char *s) {
    char *copy = xnew_n(char, (s ? strlen(s) : 0) + 1), *end = copy;

    for (size_t n; s && *s; s += MAX(n, (size_t)1)) {
        n = control_character(s);
        *end++ = n > 0 ? '?' : *s;
    }
    return copy;
}

OutputTable *output_table_new(const char *const *columns) {
    OutputTable *t = xnew(OutputTable);

    t->columns = columns;
    while (columns[t->n_columns])
        t->n_columns++;
    return t;
}

void output_table_row(OutputTable *t, char **cells) {
    for (size_t i = 0; i < t->n_columns; i++) {
        ARRAY_GROW(t->cells, t->n_cells, t->alloc_cells);
        t->cells[t->n_cells++] = output_clean(cells[i]);
        free(cells[i]);
    }
}

/* Columns on the screen; text that is not valid in the locale counts its bytes. */
static int width_of(const char *s) {
    wchar_t wide[512];
    size_t n = mbstowcs(wide, s, ELEMENTSOF(wide));
    int width = n == (size_t)-1 || n == ELEMENTSOF(wide) ? -1 : wcswidth(wide, n);

    return width < 0 ? (int)strlen(s) : width;
}

static const char *heading(const OutputTable *t, size_t column) {
    return t->columns[column] + (t->columns[column][0] == '>');
}

static int column_width(const OutputTable *t, size_t column) {
    int width = width_of(heading(t, column));

    for (size_t i = column; i < t->n_cells; i += t->n_columns)
        width = MAX(width, width_of(t->cells[i]));
    return width;
}

static void print_cell(const OutputTable *t, size_t column, int width, const char *text) {
    bool right = t->columns[column][0] == '>', last = column + 1 == t->n_columns;
    int pad = width - width_of(text);

    printf("%*s%s%*s%s", right ? pad : 0, "", text, right || last ? 0 : pad, "",
           last ? "\n" : "  ");
}

OutputTable *output_table_free(OutputTable *t) {
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
    return NULL;
}

void output_table_print(OutputTable *t) {
    _cleanup_free_ int *widths = xnew_n(int, t->n_columns);

    for (size_t c = 0; c < t->n_columns; c++)
        widths[c] = column_width(t, c);
    for (size_t c = 0; c < t->n_columns; c++)
        print_cell(t, c, widths[c], heading(t, c));
    for (size_t i = 0; i < t->n_cells; i++)
        print_cell(t, i % t->n_columns, widths[i % t->n_columns], t->cells[i]);
    (void)output_table_free(t);
}

char *output_ago(int64_t usec) {
    int64_t age = ((int64_t)now_realtime_usec() - usec) / (int64_t)USEC_PER_SEC;

    if (usec <= 0)
        return xstrdup("never");
    if (age < 1)
        return xstrdup("just now");
    if (age < 120)
        return xasprintf("%d s ago", (int)age);
    if (age < 120 * 60)
        return xasprintf("%d min ago", (int)(age / 60));
    if (age < 48 * 3600)
        return xasprintf("%d h ago", (int)(age / 3600));
    return xasprintf("%d d ago", (int)(age / 86400));
}

char *output_digest(const char *digest, bool full) {
    const char *hex = digest ? startswith(digest, "sha256:") : NULL;

    return full || !hex ? xstrdup(digest ? digest : "") : xstrndup(hex, 12);
}
