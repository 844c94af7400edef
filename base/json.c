/* SPDX-License-Identifier: Apache-2.0 */
/* json: reading of untrusted documents with jansson: capped, no duplicate names, no trailing bytes.
 */
#include "base/json.h"

#include "base/limits.h"

/* jansson's own limit (2048) is for its stack.  Counts brackets outside of strings before anything
 * is built; in what is not JSON it may count wrongly, but the parser refuses that anyway. */
static bool too_deep(const char *s, size_t n) {
    bool in_string = false;
    size_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > LIMIT_JSON_DEPTH)
                return true;
        } else if ((s[i] == '}' || s[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

/* jansson's text quotes the document, which may hold a token; so the words are ours. */
static const char *reason(const json_error_t *error) {
    switch (json_error_code(error)) {
    case json_error_duplicate_key:
        return "a name appears twice in an object";
    case json_error_end_of_input_expected:
        return "bytes follow the document";
    case json_error_premature_end_of_input:
        return "it ends early";
    case json_error_invalid_utf8:
        return "it is not UTF-8";
    case json_error_numeric_overflow:
        return "a number is too large";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a string holds a NUL";
    default:
        return "a syntax error";
    }
}

int json_parse(const void *data, size_t n, const char *what, json_t **ret, Err *err) {
    json_error_t error;
    json_t *value = NULL;

    if (too_deep(data, n))
        return err_set(err, -EBADMSG, "%s is nested deeper than %d levels", what, LIMIT_JSON_DEPTH);
    value = json_loadb(n > 0 ? data : "", n, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return err_set(err, -EBADMSG, "%s is not valid JSON: %s at line %d, column %d", what,
                       reason(&error), error.line, error.column);
    *ret = value;
    return 0;
}

/* The member, borrowed, or NULL when it is absent or null.  An object that is NULL has no members.
 */
static int member(const json_t *object, const char *name, json_t **ret, Err *err) {
    json_t *value = NULL;

    if (object && !json_is_object(object))
        return err_set(err, -EBADMSG,
                       "an object with a member \"%s\" was expected, another type was found", name);
    value = object ? json_object_get(object, name) : NULL;
    *ret = json_is_null(value) ? NULL : value;
    return 0;
}

int json_get_string(const json_t *object, const char *name, const char **ret, Err *err) {
    json_t *value = NULL;
    int r = member(object, name, &value, err);

    if (r < 0)
        return r;
    if (value && !json_is_string(value))
        return err_set(err, -EBADMSG, "\"%s\" is not a string", name);
    *ret = value ? json_string_value(value) : NULL;
    return 0;
}

int json_get_u64(const json_t *object, const char *name, uint64_t fallback, uint64_t *ret,
                 Err *err) {
    json_t *value = NULL;
    int r = member(object, name, &value, err);

    if (r < 0)
        return r;
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
        return err_set(err, -EBADMSG, "\"%s\" is not a whole number of at least 0", name);
    *ret = value ? (uint64_t)json_integer_value(value) : fallback;
    return 0;
}

int json_get_object(const json_t *object, const char *name, json_t **ret, Err *err) {
    json_t *value = NULL;
    int r = member(object, name, &value, err);

    if (r < 0)
        return r;
    if (value && !json_is_object(value))
        return err_set(err, -EBADMSG, "\"%s\" is not an object", name);
    *ret = value;
    return 0;
}

int json_get_array(const json_t *object, const char *name, json_t **ret, Err *err) {
    json_t *value = NULL;
    int r = member(object, name, &value, err);

    if (r < 0)
        return r;
    if (value && !json_is_array(value))
        return err_set(err, -EBADMSG, "\"%s\" is not an array", name);
    *ret = value;
    return 0;
}
