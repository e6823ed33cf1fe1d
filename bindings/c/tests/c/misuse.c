/* Bad input at every door, on a small model: misuse MODEL. Nothing here may be more than an error. */
#include "check.h"

#include <math.h>
#include <pthread.h>

#define STORY plm_prompt_raw(plm_text_of("Once upon a time"))

/* Each door that takes a handle, with one that stands for nothing of its kind. */
static void nothing_behind(void *handle) {
    plm_engine *engine = (plm_engine *)handle;
    plm_model *model = (plm_model *)handle, *loaded = NULL;
    plm_session *session = (plm_session *)handle, *opened = NULL;
    plm_stream *stream = (plm_stream *)handle, *begun = NULL;
    plm_prompt prompt = STORY;
    plm_text text = plm_text_of("x");
    plm_event event = plm_event_default();
    plm_estimate estimate = plm_estimate_default();
    plm_model_info info = plm_model_info_default();
    plm_health health = plm_health_default();
    uint32_t number = 0;
    size_t size = 0;
    REFUSED(PLM_INVALID_HANDLE, plm_engine_free(engine));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_load(engine, text, NULL, NULL, NULL, &loaded));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_load_bytes(engine, text, NULL, 0, NULL, NULL, NULL, &loaded));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_estimate(engine, text, NULL, &estimate));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_tick(engine, 1, NULL));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_set_pace(engine, PLM_PACE_FULL, 0));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_sustain(engine, 1));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_suspend(engine, 1, 0));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_resume(engine));
    REFUSED(PLM_INVALID_HANDLE, plm_model_free(model));
    REFUSED(PLM_INVALID_HANDLE, plm_model_get_info(model, &info));
    REFUSED(PLM_INVALID_HANDLE, plm_model_get_health(model, &health));
    REFUSED(PLM_INVALID_HANDLE, plm_model_text(model, PLM_MODEL_NAME, NULL, 0, &size));
    REFUSED(PLM_INVALID_HANDLE, plm_model_tokens(model, &prompt, NULL, 0, &size));
    float numbers[4];
    double log_probability = 0;
    REFUSED(PLM_INVALID_HANDLE, plm_model_embed(model, &prompt, PLM_POOLING_MEAN, numbers, 4, &size));
    REFUSED(PLM_INVALID_HANDLE, plm_model_score(model, &prompt, text, &log_probability, NULL));
    REFUSED(PLM_INVALID_HANDLE, plm_model_trim(model, PLM_TRIM_IDLE, NULL));
    REFUSED(PLM_INVALID_HANDLE, plm_model_weigh_adapters(model, NULL, 0));
    REFUSED(PLM_INVALID_HANDLE, plm_session_new(model, &opened));
    REFUSED(PLM_INVALID_HANDLE, plm_session_restore(model, text, &opened));
    REFUSED(PLM_INVALID_HANDLE, plm_session_from_bytes(model, NULL, 0, &opened));
    REFUSED(PLM_INVALID_HANDLE, plm_session_free(session));
    REFUSED(PLM_INVALID_HANDLE, plm_session_generate(session, &prompt, NULL, &begun));
    REFUSED(PLM_INVALID_HANDLE, plm_session_prewarm(session, &prompt, &begun));
    REFUSED(PLM_INVALID_HANDLE, plm_session_branch(session, &opened));
    REFUSED(PLM_INVALID_HANDLE, plm_session_set_overflow(session, PLM_OVERFLOW_STOP, 0));
    REFUSED(PLM_INVALID_HANDLE, plm_session_set_kv_type(session, PLM_KV_F32));
    REFUSED(PLM_INVALID_HANDLE, plm_session_forget_oldest(session));
    REFUSED(PLM_INVALID_HANDLE, plm_session_say(session, text, NULL, &begun));
    REFUSED(PLM_INVALID_HANDLE, plm_session_answered(session, text));
    REFUSED(PLM_INVALID_HANDLE, plm_session_instruct(session, text));
    REFUSED(PLM_INVALID_HANDLE, plm_session_reset(session));
    REFUSED(PLM_INVALID_HANDLE, plm_session_is_unfinished(session, &number));
    REFUSED(PLM_INVALID_HANDLE, plm_session_proceed(session, NULL, &begun));
    REFUSED(PLM_INVALID_HANDLE, plm_session_save(session, text, NULL));
    REFUSED(PLM_INVALID_HANDLE, plm_session_to_bytes(session, NULL, NULL, 0, &size));
    plm_tool_call call = {text, text, plm_text_of("")};
    plm_finish finish;
    memset(&finish, 0, sizeof finish);
    REFUSED(PLM_INVALID_HANDLE, plm_session_answered_with(session, &finish));
    REFUSED(PLM_INVALID_HANDLE, plm_session_returned(session, &call, text));
    REFUSED(PLM_INVALID_HANDLE, plm_session_go_on(session, NULL, &begun));
    REFUSED(PLM_INVALID_HANDLE, plm_session_transcript(session, NULL, 0, &size));
    REFUSED(PLM_INVALID_HANDLE, plm_session_take_up(session, text));
    REFUSED(PLM_INVALID_HANDLE, plm_session_condense_with(session, NULL, NULL));
    REFUSED(PLM_INVALID_HANDLE, plm_reply_write((plm_reply *)handle, text));
    REFUSED(PLM_INVALID_HANDLE, plm_stream_next(stream, &event));
    REFUSED(PLM_INVALID_HANDLE, plm_stream_poll(stream, &event));
    REFUSED(PLM_INVALID_HANDLE, plm_stream_cancel(stream));
    REFUSED(PLM_INVALID_HANDLE, plm_stream_free(stream));
    CHECK(loaded == NULL && opened == NULL && begun == NULL);
}

static void handles_are_looked_up(const char *path) {
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 0);
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(path), NULL, NULL, NULL, &model));
    nothing_behind(NULL);
    nothing_behind(&engine);
    nothing_behind((void *)(size_t)1234567);
    nothing_behind((void *)SIZE_MAX);
    /* One of another kind, and its own kind after it was freed, twice. */
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    REFUSED(PLM_INVALID_HANDLE, plm_model_free((plm_model *)(void *)session));
    REFUSED(PLM_INVALID_HANDLE, plm_engine_free((plm_engine *)(void *)model));
    REFUSED(PLM_INVALID_HANDLE, plm_stream_free((plm_stream *)(void *)engine));
    CHECK(strstr(plm_last_error_message(), "an engine") != NULL);
    OK(plm_session_free(session));
    nothing_behind(session);
    OK(plm_model_free(model));
    nothing_behind(model);
    OK(plm_engine_free(engine));
    nothing_behind(engine);
}

static void arguments_are_checked(plm_engine *engine, plm_model *model, const char *path) {
    plm_engine *other = (plm_engine *)&engine;
    plm_engine_options how = plm_engine_options_default();
    how.struct_size = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_new(&how, &other));
    CHECK(other == NULL);
    how.struct_size = SIZE_MAX;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_new(&how, &other));
    how.struct_size = sizeof how + 8;
    REFUSED(PLM_UNSUPPORTED, plm_engine_new(&how, &other));
    how = plm_engine_options_default();
    how.device = 77;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_new(&how, &other));
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_new(NULL, NULL));
    how = plm_engine_options_default();
    how.tuning.size = 3;
    how.tuning.data = NULL;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_new(&how, &other));

    plm_model *loaded = NULL;
    const char bytes[] = {'m', (char)0xc3, (char)0x28, 0};
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(bytes), NULL, NULL, NULL, &loaded));
    CHECK(strstr(plm_last_error_message(), "UTF-8 from byte 1") != NULL);
    REFUSED(PLM_NOT_FOUND, plm_engine_load(engine, plm_text_of("/nowhere.gguf"), NULL, NULL, NULL, &loaded));
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), NULL, NULL, NULL, NULL));
    REFUSED(PLM_BAD_FILE,
            plm_engine_load_bytes(engine, plm_text_of("junk"), (const uint8_t *)"junkjunkjunkjunk", 16, NULL, NULL,
                                  NULL, &loaded));
    REFUSED(PLM_INVALID_ARGUMENT,
            plm_engine_load_bytes(engine, plm_text_of("x"), (const uint8_t *)"x", SIZE_MAX, NULL, NULL, NULL, &loaded));
    plm_load_options load = plm_load_options_default();
    load.sessions = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    load = plm_load_options_default();
    load.context = UINT32_MAX;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    load = plm_load_options_default();
    load.adapter_count = SIZE_MAX / 8;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    load = plm_load_options_default();
    load.manifest_key = plm_text_of("RWQ");
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));

    load = plm_load_options_default();
    load.kv_type = 99;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    load.kv_type = PLM_KV_AUTO;
    plm_places places = {PLM_KV_AUTO, 1};
    load.more_sessions = &places;
    load.more_session_count = 1;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    places.kv_type = PLM_KV_F16;
    places.sessions = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    load.more_sessions = NULL;
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_load(engine, plm_text_of(path), &load, NULL, NULL, &loaded));
    float numbers[4];
    plm_prompt asked = STORY;
    size_t count = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_embed(model, &asked, 9, numbers, 4, &count));
    REFUSED(PLM_TOO_SMALL, plm_model_embed(model, &asked, PLM_POOLING_MEAN, numbers, 4, &count));
    double log_probability = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_score(model, &asked, plm_text_of(""), &log_probability, NULL));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_score(model, &asked, plm_text_of(" there"), NULL, NULL));

    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_set_pace(engine, 9, 0));
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_set_pace(engine, PLM_PACE_FRAME, -1));
    REFUSED(PLM_INVALID_ARGUMENT, plm_engine_sustain(engine, -5));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_trim(model, 9, NULL));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_get_info(model, NULL));
    plm_model_info info = plm_model_info_default();
    info.struct_size = 3;
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_get_info(model, &info));
    size_t size = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_text(model, 99, NULL, 0, &size));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_text(model, PLM_MODEL_NAME, NULL, 5, &size));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_text(model, PLM_MODEL_NAME, NULL, 0, NULL));
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_weigh_adapters(model, NULL, 7));
    float weight = 1.0f;
    REFUSED(PLM_INVALID_ARGUMENT, plm_model_weigh_adapters(model, &weight, 1));
    CHECK(strcmp(plm_status_name(PLM_BAD_FILE), "bad file") == 0);
    CHECK(strcmp(plm_status_name(-1), "unknown") == 0);
}

static void prompts_are_checked(plm_model *model) {
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    OK(plm_session_new(model, &session));
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(5);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_overflow(session, 7, 0));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_kv_type(session, PLM_KV_AUTO));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_kv_type(session, 99));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_kv_type(session, PLM_KV_Q4));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_overflow(session, PLM_OVERFLOW_SLIDE, UINT32_MAX));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, NULL, &options, &stream));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, NULL));
    prompt.kind = 44;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    uint32_t tokens[3] = {1, 2, 512};
    prompt = plm_prompt_tokens(tokens, 3);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    prompt = plm_prompt_tokens(tokens, SIZE_MAX / 2);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    prompt = plm_prompt_tokens(NULL, 3);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    prompt = plm_prompt_tokens(NULL, 0);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    prompt = plm_prompt_json(plm_text_of("{\"role\": 1"));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    plm_message message = {plm_text_of("user"), {"\xff", 1}};
    prompt = plm_prompt_chat(&message, 1);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    message.content = plm_text_of("hello");
    REFUSED(PLM_TEMPLATE, plm_session_generate(session, &prompt, &options, &stream));
    prompt = STORY;
    const float absurd[] = {-2.0f, INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        options = tokens_of(5);
        options.temperature = absurd[i];
        REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    }
    options = tokens_of(5);
    options.top_k = -3;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options = tokens_of(5);
    plm_text empty = {NULL, 0};
    options.stop = &empty;
    options.stop_count = 1;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.stop_count = SIZE_MAX;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options = tokens_of(5);
    options.draft = (plm_model *)(void *)session;
    REFUSED(PLM_INVALID_HANDLE, plm_session_generate(session, &prompt, &options, &stream));
    options.draft = model;
    options.lookup = 1;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.lookup = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options = tokens_of(5);
    options.constraint = 99;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.constraint = PLM_CONSTRAINT_JSON_SCHEMA;
    options.grammar = plm_text_of("{");
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.constraint = PLM_CONSTRAINT_REGEX;
    options.grammar = plm_text_of("(");
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.constraint = PLM_CONSTRAINT_CHOICE;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options.choice_count = SIZE_MAX / 4;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    options = tokens_of(5);
    options.logit_bias_count = 3;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_generate(session, &prompt, &options, &stream));
    uint32_t many[400];
    for (int i = 0; i < 400; i++) {
        many[i] = 50;
    }
    prompt = plm_prompt_tokens(many, 400);
    options = tokens_of(5);
    REFUSED(PLM_CONTEXT_OVERFLOW, plm_session_generate(session, &prompt, &options, &stream));
    CHECK(stream == NULL);
    prompt = STORY;
    OK(plm_session_generate(session, &prompt, &options, &stream));
    REFUSED(PLM_INVALID_ARGUMENT, plm_stream_next(stream, NULL));
    plm_event event = plm_event_default();
    event.struct_size = 0;
    REFUSED(PLM_INVALID_ARGUMENT, plm_stream_next(stream, &event));
    /* Nothing of the answer was lost by that. */
    answer answer;
    pull(stream, &answer);
    CHECK(answer.token_count == 5);
    OK(plm_session_free(session));
}

static int32_t free_all(const plm_event *event, void *user) {
    void **handles = (void **)user;
    if (event->kind == PLM_EVENT_TEXT && handles[0] != NULL) {
        plm_stream *stream = NULL;
        plm_prompt prompt = STORY;
        REFUSED(PLM_SESSION_BUSY, plm_session_generate((plm_session *)handles[0], &prompt, NULL, &stream));
        OK(plm_session_free((plm_session *)handles[0]));
        OK(plm_model_free((plm_model *)handles[1]));
        handles[0] = NULL;
    }
    CHECK(event->kind != PLM_EVENT_FINISHED || event->finish->token_count == 5);
    return 1;
}

static void a_callback_may_free_what_it_runs_on(plm_engine *engine, const char *path) {
    plm_model *model = NULL;
    plm_session *session = NULL;
    OK(plm_engine_load(engine, plm_text_of(path), NULL, NULL, NULL, &model));
    OK(plm_session_new(model, &session));
    void *handles[2] = {session, model};
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(5);
    OK(plm_session_run(session, &prompt, &options, free_all, handles));
    CHECK(handles[0] == NULL);
    nothing_behind(session);
}

static void *pull_freed(void *user) {
    plm_event event = plm_event_default();
    plm_status status;
    do {
        /* The other one may have come first; then this one is told so. */
        status = plm_stream_next((plm_stream *)user, &event);
    } while (status == PLM_OK || status == PLM_SESSION_BUSY);
    CHECK(status == PLM_INVALID_HANDLE);
    return NULL;
}

/* One thread waits for a stream that another pulls at, and frees. */
static void two_threads_are_told_apart(const char *path) {
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 1);
    plm_model *model = NULL;
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    OK(plm_engine_load(engine, plm_text_of(path), NULL, NULL, NULL, &model));
    OK(plm_session_new(model, &session));
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(200);
    OK(plm_engine_sustain(engine, 2.0));
    OK(plm_session_generate(session, &prompt, &options, &stream));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, pull_freed, stream) == 0);
    plm_event event = plm_event_default();
    plm_status status;
    do {
        status = plm_stream_poll(stream, &event);
        CHECK(status == PLM_OK || status == PLM_PENDING || status == PLM_SESSION_BUSY);
    } while (status != PLM_SESSION_BUSY);
    OK(plm_stream_free(stream));
    CHECK(pthread_join(thread, NULL) == 0);
    nothing_behind(stream);
    OK(plm_session_free(session));
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
}

static void *open_and_close(void *user) {
    plm_model *model = (plm_model *)user;
    for (int i = 0; i < 50; i++) {
        plm_session *session = NULL;
        OK(plm_session_new(model, &session));
        OK(plm_session_free(session));
        REFUSED(PLM_INVALID_HANDLE, plm_session_free(session));
    }
    return NULL;
}

static void many_threads_open_and_close(plm_model *model) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, open_and_close, model) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(strcmp(plm_last_error_message(), "") == 0);
    handles_are_looked_up(argv[1]);
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 0);
    plm_load_options load = plm_load_options_default();
    load.context = 256;
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(argv[1]), &load, NULL, NULL, &model));
    arguments_are_checked(engine, model, argv[1]);
    prompts_are_checked(model);
    a_callback_may_free_what_it_runs_on(engine, argv[1]);
    two_threads_are_told_apart(argv[1]);
    many_threads_open_and_close(model);
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
    puts("misuse: ok");
    return 0;
}
