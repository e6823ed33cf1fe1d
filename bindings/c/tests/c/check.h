/* What the programs here share: checks that say where, and a model. */
#ifndef CHECK_H
#define CHECK_H

#include <pocketlm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n  last error: %s\n", file, line, what, plm_last_error_message());
    abort();
}

#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))
#define OK(call) CHECK((call) == PLM_OK)
/* The call fails with this status, the last error has it too, and says something. */
#define REFUSED(expected, call)                                                        \
    do {                                                                               \
        CHECK((call) == (expected));                                                   \
        plm_error error_of_call = plm_error_default();                                 \
        OK(plm_last_error(&error_of_call));                                            \
        CHECK(error_of_call.status == (expected) && error_of_call.message.size > 0);   \
    } while (0)

/* Tokens of an answer, and its text. */
typedef struct answer {
    uint32_t tokens[512];
    size_t token_count;
    uint32_t prompt[512];
    size_t prompt_count;
    char text[8192];
    size_t text_size;
    uint32_t reason;
} answer;

static inline bool same_tokens(const answer *a, size_t from, const answer *b) {
    return a->token_count == b->token_count + from &&
           memcmp(a->tokens + from, b->tokens, b->token_count * sizeof(uint32_t)) == 0;
}

static inline bool same_text(plm_text text, const char *expected) {
    return text.size == strlen(expected) && memcmp(text.data, expected, text.size) == 0;
}

/* Keeps an event. */
static inline void hear(answer *answer, const plm_event *event) {
    if (event->kind == PLM_EVENT_TEXT) {
        CHECK(answer->text_size + event->text.size < sizeof answer->text);
        memcpy(answer->text + answer->text_size, event->text.data, event->text.size);
        answer->text_size += event->text.size;
        answer->text[answer->text_size] = '\0';
    } else if (event->kind == PLM_EVENT_FINISHED) {
        const plm_finish *finish = event->finish;
        CHECK(finish->struct_size == sizeof *finish);
        CHECK(finish->token_count <= 512 && finish->prompt_token_count <= 512);
        answer->reason = finish->reason;
        answer->token_count = finish->token_count;
        answer->prompt_count = finish->prompt_token_count;
        if (finish->token_count > 0) {
            memcpy(answer->tokens, finish->tokens, finish->token_count * sizeof(uint32_t));
        }
        memcpy(answer->prompt, finish->prompt_tokens, finish->prompt_token_count * sizeof(uint32_t));
        /* What was streamed is what was said. */
        CHECK(finish->text.size == answer->text_size);
        CHECK(memcmp(finish->text.data, answer->text, answer->text_size) == 0);
    }
}

/* Pulls a stream to its end, and frees it. */
static inline void pull(plm_stream *stream, answer *answer) {
    memset(answer, 0, sizeof *answer);
    plm_event event = plm_event_default();
    plm_status status;
    while ((status = plm_stream_next(stream, &event)) == PLM_OK) {
        hear(answer, &event);
    }
    CHECK(status == PLM_END);
    OK(plm_stream_free(stream));
}

static inline plm_generate_options tokens_of(uint32_t count) {
    plm_generate_options options = plm_generate_options_default();
    options.max_tokens = count;
    return options;
}

static inline plm_engine *engine_on(uint32_t device, uint32_t worker) {
    plm_engine_options options = plm_engine_options_default();
    options.device = device;
    options.exact = 1;
    options.worker = worker;
    options.threads = 2;
    plm_engine *engine = NULL;
    OK(plm_engine_new(&options, &engine));
    return engine;
}

#endif
