/* SPDX-License-Identifier: Apache-2.0 */
/* answer: what an HTTP status and a registry's error document mean. */
#include "oci/answer.h"

#include "base/json.h"
#include "base/parse.h"

static const struct {
    unsigned status;
    int r;
    const char *reason, *advice;
} answers[] = {
    { 304, -EPROTO, "Not Modified", ", which answers a question that was not asked" },
    { 400, -EPROTO, "Bad Request", "" },
    { 401, -EKEYREJECTED, "Unauthorized",
      ": the credentials are missing or not good for this repository" },
    { 403, -EACCES, "Forbidden", "; these credentials may not pull from this repository" },
    { 404, -ENOENT, "Not Found", "; check the repository and tag" },
    { 405, -EPROTO, "Method Not Allowed", "; is this a registry?" },
    { 406, -EPROTO, "Not Acceptable", "" },
    { 407, -EPERM, "Proxy Authentication Required", "; check the proxy settings" },
    { 408, -ECONNREFUSED, "Request Timeout", "" },
    { 410, -ENOENT, "Gone", "" },
    { 416, -EPROTO, "Range Not Satisfiable", "" },
    { 429, -ECONNREFUSED, "Too Many Requests", "; the registry limits how much may be pulled" },
    { 500, -ECONNREFUSED, "Internal Server Error", "; look into the registry's log" },
    { 502, -ECONNREFUSED, "Bad Gateway", "" },
    { 503, -ECONNREFUSED, "Service Unavailable", "" },
    { 504, -ECONNREFUSED, "Gateway Timeout", "" },
};

/* Appends printable ASCII and UTF-8, up to the room there is. */
static size_t append_clean(char *to, size_t len, size_t size, const char *s) {
    for (size_t n; *s && len + 1 < size; s += MAX(n, (size_t)1)) {
        n = control_character(s);
        to[len++] = n > 0 ? ' ' : *s;
    }
    while (*s && len > 0 && ((unsigned char)to[len - 1] & 0xc0) == 0x80) /* not half a character */
        len--;
    if (*s && len > 0 && (unsigned char)to[len - 1] >= 0xc0)
        len--;
    to[len] = 0;
    return len;
}

void answer_words(const void *data, size_t n, char ret[static ANSWER_WORDS_MAX]) {
    _cleanup_json_ json_t *root = NULL;
    const char *code, *message;
    const json_t *first;
    size_t len = 0;

    ret[0] = 0;
    if (json_parse(data, n, "the error", &root, NULL) < 0)
        return;
    first = json_array_get(json_object_get(root, "errors"), 0);
    code = json_string_value(json_object_get(first, "code"));
    message = json_string_value(json_object_get(first, "message"));
    if (!first) { /* token servers: {"details": …}, OAuth's {"error": …, "error_description": …} */
        code = json_string_value(json_object_get(root, "error"));
        message = json_string_value(json_object_get(root, "error_description"));
        if (!message)
            message = json_string_value(json_object_get(root, "details"));
    }
    if (!isempty(code))
        len = append_clean(ret, 0, 64, code);
    if (!isempty(code) && !isempty(message))
        len = append_clean(ret, len, ANSWER_WORDS_MAX, ": ");
    if (!isempty(message))
        (void)append_clean(ret, len, ANSWER_WORDS_MAX, message);
}

bool answer_is_registrys(const Buf *body) {
    _cleanup_json_ json_t *root = NULL;
    const json_t *first;

    if (json_parse(body->data, body->len, "the error", &root, NULL) < 0)
        return false;
    first = json_array_get(json_object_get(root, "errors"), 0);
    return json_is_string(json_object_get(first, "code"));
}

static int default_errno(unsigned status) {
    return status >= 500 && status <= 599 ? -ECONNREFUSED : -EPROTO;
}

int answer_error(unsigned status, const Buf *body, const char *retry_after, Err *err) {
    char words[ANSWER_WORDS_MAX], after[48] = "";
    const char *reason = "", *advice = "";
    int r = default_errno(status);
    uint64_t seconds = 0;

    for (size_t i = 0; i < ELEMENTSOF(answers); i++)
        if (answers[i].status == status) {
            r = answers[i].r;
            reason = answers[i].reason;
            advice = answers[i].advice;
        }
    answer_words(body->data, body->len, words);
    if (retry_after && parse_u64(retry_after, &seconds) == 0)
        (void)snprintf(after, sizeof(after), "; it asks to wait for %llu s",
                       (unsigned long long)seconds);
    return err_set(err, r, "%u%s%s%s%s%s%s%s", status, reason[0] ? " " : "", reason,
                   words[0] ? " (" : "", words, words[0] ? ")" : "", advice, after);
}
