/* SPDX-License-Identifier: Apache-2.0 */
/* test_answer: error documents of registries and token servers. */
#include "oci/answer.h"

#include "tests/unit/test.h"

TEST(answer_words_of_many_makers) {
    static const struct {
        const char *body, *words;
    } cases[] = {
        { "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"},{\"code\":\"x\"}]}",
          "DENIED: no" },
        { "{\"errors\":[{\"code\":\"DENIED\"}]}", "DENIED" },
        { "{\"errors\":[{\"message\":\"a\\u0000b\"}]}", "" }, /* a NUL is not JSON for us */
        { "{\"errors\":[{\"message\":\"a\\u001b[2Jb\\r\\nc\"}]}", "a [2Jb  c" },
        { "{\"errors\":[{\"message\":\"a\\u009b2Jb\\u202ec\"}]}", "a 2Jb c" },
        { "{\"errors\":[{\"code\":17}]}", "" },
        { "{\"errors\":{}}", "" },
        { "{\"error\":\"invalid_grant\",\"error_description\":\"old\"}", "invalid_grant: old" },
        { "{\"details\":\"incorrect username or password\"}", "incorrect username or password" },
        { "<html>", "" },
        { "", "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char words[ANSWER_WORDS_MAX];
        answer_words(cases[i].body, strlen(cases[i].body), words);
        ASSERT_STREQ(words, cases[i].words);
    }
}

TEST(answer_of_a_registry_is_known_by_its_document) {
    static const struct {
        const char *body;
        bool is;
    } cases[] = {
        { "{\"errors\":[{\"code\":\"NAME_UNKNOWN\",\"message\":\"m\"}]}", true },
        { "{\"errors\":[{\"code\":\"\"}]}", true },
        { "{\"errors\":[{\"message\":\"m\"}]}", false },
        { "{\"errors\":[]}", false },
        { "{\"errors\":{}}", false },
        { "{\"error\":\"not found\"}", false },
        { "404 page not found\n", false }, /* an ingress without a backend */
        { "<html>", false },
        { "", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Buf body = BUF_INIT(1000);
        ASSERT_OK(buf_append(&body, cases[i].body, strlen(cases[i].body)));
        ASSERT_EQ(answer_is_registrys(&body), cases[i].is);
        buf_done(&body);
    }
}

TEST(answer_words_are_cut_between_characters) {
    char body[1000] = "{\"errors\":[{\"code\":\"C\",\"message\":\"", words[ANSWER_WORDS_MAX];
    size_t n = strlen(body);

    for (int i = 0; i < 300; i++, n += 2)
        memcpy(body + n, "\xc3\xa4", 2);
    memcpy(body + n, "\"}]}", 5);
    answer_words(body, strlen(body), words);
    ASSERT_TRUE(strlen(words) >= ANSWER_WORDS_MAX - 4 && strlen(words) < ANSWER_WORDS_MAX);
    ASSERT_EQ((unsigned char)words[strlen(words) - 1], 0xa4);
}

TEST(answer_errors) {
    static const struct {
        unsigned status;
        int r;
    } cases[] = {
        { 400, -EPROTO },       { 401, -EKEYREJECTED }, { 403, -EACCES },
        { 404, -ENOENT },       { 407, -EPERM },        { 408, -ECONNREFUSED },
        { 410, -ENOENT },       { 429, -ECONNREFUSED }, { 500, -ECONNREFUSED },
        { 502, -ECONNREFUSED }, { 507, -ECONNREFUSED }, { 304, -EPROTO },
        { 600, -EPROTO },       { 0, -EPROTO },
    };
    static const char unknown[] = "{\"errors\":[{\"code\":\"NAME_UNKNOWN\",\"message\":\"m\"}]}";
    Buf body = BUF_INIT(1000);
    Err err = { 0 };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        ASSERT_ERR(answer_error(cases[i].status, &body, NULL, &err), cases[i].r);
    ASSERT_ERR(answer_error(418, &body, NULL, &err), -EPROTO);
    ASSERT_STREQ(err.text, "418");
    ASSERT_ERR(answer_error(429, &body, "30", &err), -ECONNREFUSED);
    ASSERT_STREQ(err.text, "429 Too Many Requests; the registry limits how much may be pulled; it "
                           "asks to wait for 30 s");
    ASSERT_ERR(answer_error(429, &body, "Fri, 31 Dec 1999 23:59:59 GMT", &err), -ECONNREFUSED);
    ASSERT_OK(buf_append(&body, unknown, strlen(unknown)));
    ASSERT_ERR(answer_error(404, &body, NULL, &err), -ENOENT);
    ASSERT_STREQ(err.text, "404 Not Found (NAME_UNKNOWN: m); check the repository and tag");
    buf_done(&body);
}
