/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_answer: any bytes as the body of an error: printable words. */
#include "oci/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char words[ANSWER_WORDS_MAX];

    answer_words(data, size, words);
    if (strlen(words) >= sizeof(words))
        abort();
    for (const char *s = words; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            abort();
    return 0;
}
