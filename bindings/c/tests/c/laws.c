/* The laws of the engine, through C, on a small model: laws MODEL SCRATCH GREEDY SEEDED, the last two being tokens that
 * Rust had for the same questions, with commas. */
#include "check.h"

#include <pthread.h>
#include <time.h>

#define STORY plm_prompt_raw(plm_text_of("Once upon a time"))

static plm_model *load(plm_engine *engine, const char *path, uint32_t context) {
    plm_load_options options = plm_load_options_default();
    options.context = context;
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(path), &options, NULL, NULL, &model));
    return model;
}

static void tell_by(plm_session *session, plm_prompt prompt, plm_generate_options options, answer *answer) {
    plm_stream *stream = NULL;
    OK(plm_session_generate(session, &prompt, &options, &stream));
    pull(stream, answer);
}

static void tell(plm_model *model, uint32_t count, answer *answer) {
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    tell_by(session, STORY, tokens_of(count), answer);
    OK(plm_session_free(session));
}

static void expect(const answer *answer, const char *tokens) {
    char *at = (char *)(size_t)tokens;
    for (size_t i = 0; i < answer->token_count; i++) {
        CHECK(strtoul(at, &at, 10) == answer->tokens[i]);
        CHECK(*at == (i + 1 < answer->token_count ? ',' : '\0'));
        at += 1;
    }
}

static plm_generate_options seeded(uint32_t count) {
    plm_generate_options options = tokens_of(count);
    options.temperature = 1.0f;
    options.top_k = 40;
    options.repeat_penalty = 1.1f;
    options.seed = 7;
    options.has_seed = 1;
    return options;
}

static void the_tokens_are_those_of_rust(plm_model *model, plm_model *draft, const char *greedy, const char *drawn) {
    answer answer;
    tell(model, 60, &answer);
    expect(&answer, greedy);
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    tell_by(session, STORY, seeded(40), &answer);
    expect(&answer, drawn);
    /* Guessed tokens change nothing. */
    plm_generate_options guessed = tokens_of(60);
    guessed.lookup = 1;
    tell_by(session, STORY, guessed, &answer);
    expect(&answer, greedy);
    guessed.lookup = 0;
    guessed.draft = draft;
    tell_by(session, STORY, guessed, &answer);
    expect(&answer, greedy);
    CHECK(answer.reason == PLM_FINISH_LENGTH);
    OK(plm_session_free(session));
}

static void a_frame_loop_has_the_same_tokens(plm_engine *engine, plm_model *model, const answer *whole) {
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    OK(plm_session_new(model, &session));
    OK(plm_session_generate(session, &prompt, &options, &stream));
    answer answer;
    memset(&answer, 0, sizeof answer);
    plm_event event = plm_event_default();
    unsigned frames = 0;
    for (plm_status status = PLM_PENDING; status != PLM_END; frames++) {
        plm_progress progress = plm_progress_default();
        OK(plm_engine_tick(engine, 500, &progress));
        while ((status = plm_stream_poll(stream, &event)) == PLM_OK) {
            hear(&answer, &event);
        }
        CHECK(status == PLM_PENDING || status == PLM_END);
    }
    CHECK(frames > 1 && same_tokens(&answer, 0, whole));
    OK(plm_stream_free(stream));
    OK(plm_session_free(session));
}

typedef struct listener {
    answer answer;
    unsigned texts, most;
} listener;

static int32_t listen(const plm_event *event, void *user) {
    listener *to = (listener *)user;
    hear(&to->answer, event);
    to->texts += event->kind == PLM_EVENT_TEXT;
    return to->texts < to->most;
}

static void a_callback_hears_all_and_can_stop(plm_model *model, const answer *whole) {
    plm_session *session = NULL;
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    OK(plm_session_new(model, &session));
    listener all = {.most = 1000};
    OK(plm_session_run(session, &prompt, &options, listen, &all));
    CHECK(same_tokens(&all.answer, 0, whole));
    listener some = {.most = 10};
    OK(plm_session_run(session, &prompt, &options, listen, &some));
    CHECK(some.answer.reason == PLM_FINISH_CANCELLED && some.answer.token_count < 40);
    CHECK(strncmp(whole->text, some.answer.text, some.answer.text_size) == 0);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_run(session, &prompt, &options, NULL, NULL));
    OK(plm_session_free(session));
}

static void *cancel(void *stream) {
    OK(plm_stream_cancel((plm_stream *)stream));
    return NULL;
}

static void *cancel_soon(void *stream) {
    const struct timespec moment = {0, 200000000};
    CHECK(nanosleep(&moment, NULL) == 0);
    return cancel(stream);
}

static void cancelled_and_continued_is_never_cancelled(plm_model *model, const answer *whole) {
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    OK(plm_session_new(model, &session));
    OK(plm_session_generate(session, &prompt, &options, &stream));
    answer first;
    memset(&first, 0, sizeof first);
    plm_event event = plm_event_default();
    plm_status status;
    for (unsigned texts = 0; (status = plm_stream_next(stream, &event)) == PLM_OK;) {
        hear(&first, &event);
        texts += event.kind == PLM_EVENT_TEXT;
        if (event.kind == PLM_EVENT_TEXT && texts == 10) {
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, cancel, stream) == 0 && pthread_join(thread, NULL) == 0);
        }
    }
    CHECK(status == PLM_END && first.reason == PLM_FINISH_CANCELLED && first.token_count < 40);
    /* Use after the end: the end, again and again, and to cancel what is over is nothing. */
    CHECK(plm_stream_next(stream, &event) == PLM_END && plm_stream_poll(stream, &event) == PLM_END);
    OK(plm_stream_cancel(stream));
    OK(plm_stream_free(stream));
    uint32_t past[1024];
    memcpy(past, first.prompt, first.prompt_count * sizeof *past);
    memcpy(past + first.prompt_count, first.tokens, first.token_count * sizeof *past);
    answer rest;
    uint32_t left = 60 - (uint32_t)first.token_count;
    tell_by(session, plm_prompt_tokens(past, first.prompt_count + first.token_count), tokens_of(left), &rest);
    CHECK(same_tokens(whole, first.token_count, &rest));
    OK(plm_session_free(session));
}

static void a_session_is_busy_until_its_stream_is_freed(plm_model *model, const answer *whole) {
    plm_session *session = NULL;
    plm_stream *stream = NULL, *other = NULL;
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    OK(plm_session_new(model, &session));
    OK(plm_session_generate(session, &prompt, &options, &stream));
    plm_event event = plm_event_default();
    OK(plm_stream_next(stream, &event));
    REFUSED(PLM_SESSION_BUSY, plm_session_generate(session, &prompt, &options, &other));
    CHECK(other == NULL);
    OK(plm_stream_free(stream));
    answer again;
    tell_by(session, prompt, options, &again);
    CHECK(same_tokens(&again, 0, whole));
    OK(plm_session_free(session));
}

static void stop_strings_end_an_answer_before_them(plm_model *model, const answer *whole) {
    const char *at = whole->text;
    for (int words = 0; words < 8; words++) {
        at = strchr(at + 1, ' ');
        CHECK(at != NULL);
    }
    size_t length = strcspn(at + 1, " ");
    plm_text stop = {at + 1, length};
    plm_generate_options options = tokens_of(60);
    options.stop = &stop;
    options.stop_count = 1;
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    answer answer;
    tell_by(session, STORY, options, &answer);
    CHECK(answer.reason == PLM_FINISH_STOP);
    CHECK(answer.text_size <= (size_t)(at + 1 - whole->text));
    CHECK(strncmp(whole->text, answer.text, answer.text_size) == 0);
    OK(plm_session_free(session));
}

static void what_is_saved_goes_on(plm_model *model, const char *scratch, const answer *whole) {
    plm_session *session = NULL, *restored = NULL;
    plm_stream *stream = NULL;
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    OK(plm_session_new(model, &session));
    OK(plm_session_generate(session, &prompt, &options, &stream));
    plm_event event = plm_event_default();
    for (unsigned texts = 0; texts < 5; texts += event.kind == PLM_EVENT_TEXT) {
        OK(plm_stream_next(stream, &event));
    }
    plm_save_options save = plm_save_options_default();
    save.kv = 1;
    OK(plm_session_save(session, plm_text_of(scratch), &save));
    size_t size = 0, second = 0;
    OK(plm_session_to_bytes(session, NULL, NULL, 0, &size));
    uint8_t *bytes = malloc(size);
    CHECK(bytes != NULL);
    REFUSED(PLM_TOO_SMALL, plm_session_to_bytes(session, NULL, bytes, size - 1, &second));
    CHECK(second == size);
    OK(plm_session_to_bytes(session, NULL, bytes, size, &size));
    OK(plm_stream_free(stream));
    OK(plm_session_free(session));
    for (int from_file = 0; from_file < 2; from_file++) {
        if (from_file) {
            OK(plm_session_restore(model, plm_text_of(scratch), &restored));
        } else {
            OK(plm_session_from_bytes(model, bytes, size, &restored));
        }
        uint32_t unfinished = 0;
        OK(plm_session_is_unfinished(restored, &unfinished));
        CHECK(unfinished == 1);
        answer rest;
        OK(plm_session_proceed(restored, &options, &stream));
        pull(stream, &rest);
        CHECK(same_tokens(&rest, 0, whole) && strcmp(rest.text, whole->text) == 0);
        REFUSED(PLM_INVALID_ARGUMENT, plm_session_proceed(restored, &options, &stream));
        OK(plm_session_free(restored));
    }
    bytes[size / 2] ^= 1;
    REFUSED(PLM_BAD_FILE, plm_session_from_bytes(model, bytes, size, &restored));
    CHECK(restored == NULL);
    free(bytes);
    REFUSED(PLM_NOT_FOUND, plm_session_restore(model, plm_text_of("/nowhere/session"), &restored));
}

static void keys_and_values_are_kept_as_each_session_wants(const char *path, const answer *whole) {
    /* One that is exact keeps them whole. */
    plm_engine_options usual = plm_engine_options_default();
    usual.device = PLM_DEVICE_CPU;
    plm_engine *engine = NULL;
    OK(plm_engine_new(&usual, &engine));
    plm_load_options options = plm_load_options_default();
    plm_places places[] = {{PLM_KV_Q4, 1}, {PLM_KV_Q8, 2}};
    options.more_sessions = places;
    options.more_session_count = 2;
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(path), &options, NULL, NULL, &model));
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    answer answer;
    for (uint32_t type = PLM_KV_F16; type <= PLM_KV_Q4; type++) {
        OK(plm_session_set_kv_type(session, type));
        tell_by(session, STORY, tokens_of(40), &answer);
        CHECK(answer.token_count == 40);
    }
    OK(plm_session_set_kv_type(session, PLM_KV_F16));
    tell_by(session, STORY, tokens_of(40), &answer);
    CHECK(memcmp(answer.tokens, whole->tokens, 40 * sizeof(uint32_t)) == 0);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_set_kv_type(session, PLM_KV_F32));
    OK(plm_session_free(session));
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
}

static void sessions_are_computed_ahead_branch_and_slide(plm_engine *engine, const char *path, const answer *whole) {
    plm_model *model = load(engine, path, 64);
    plm_session *session = NULL, *branch = NULL;
    plm_stream *stream = NULL;
    plm_prompt prompt = STORY;
    OK(plm_session_new(model, &session));
    OK(plm_session_prewarm(session, &prompt, &stream));
    answer answer;
    pull(stream, &answer);
    CHECK(answer.token_count == 0);
    OK(plm_session_branch(session, &branch));
    tell_by(branch, STORY, tokens_of(40), &answer);
    CHECK(memcmp(answer.tokens, whole->tokens, 40 * sizeof(uint32_t)) == 0);
    tell_by(session, STORY, tokens_of(200), &answer);
    CHECK(answer.reason == PLM_FINISH_LENGTH && answer.token_count < 64);
    OK(plm_session_set_overflow(branch, PLM_OVERFLOW_SLIDE, 4));
    tell_by(branch, STORY, tokens_of(200), &answer);
    CHECK(answer.token_count == 200);
    OK(plm_session_forget_oldest(branch));
    OK(plm_session_free(branch));
    OK(plm_session_free(session));
    OK(plm_model_free(model));
}

static void a_worker_computes_and_stands_still(const char *path, const answer *whole) {
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 1);
    plm_model *model = load(engine, path, 0);
    plm_session *sessions[2] = {NULL, NULL};
    plm_stream *streams[2] = {NULL, NULL};
    plm_prompt prompt = STORY;
    plm_generate_options options = tokens_of(60);
    for (int i = 0; i < 2; i++) {
        OK(plm_session_new(model, &sessions[i]));
        OK(plm_session_generate(sessions[i], &prompt, &options, &streams[i]));
    }
    plm_status stands = plm_engine_suspend(engine, 2000, 0);
    CHECK(stands == PLM_OK);
    /* The engine, the model and the sessions go; the streams go on. */
    OK(plm_engine_resume(engine));
    OK(plm_engine_free(engine));
    OK(plm_model_free(model));
    for (int i = 0; i < 2; i++) {
        OK(plm_session_free(sessions[i]));
    }
    for (int i = 0; i < 2; i++) {
        answer answer;
        pull(streams[i], &answer);
        CHECK(same_tokens(&answer, 0, whole));
    }
}

/* At a token in 20 seconds, the end of a cancelled answer is there at once. */
static void a_cancel_does_not_wait_for_its_turn(const char *path) {
    for (uint32_t worker = 0; worker < 2; worker++) {
        plm_engine *engine = engine_on(PLM_DEVICE_CPU, worker);
        plm_model *model = load(engine, path, 0);
        plm_session *session = NULL;
        plm_stream *stream = NULL;
        plm_prompt prompt = STORY;
        plm_generate_options options = tokens_of(60);
        OK(plm_session_new(model, &session));
        OK(plm_engine_sustain(engine, 0.05));
        OK(plm_session_generate(session, &prompt, &options, &stream));
        plm_event event = plm_event_default();
        while (event.kind != PLM_EVENT_TEXT) {
            OK(plm_stream_next(stream, &event));
        }
        time_t begun = time(NULL);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_soon, stream) == 0);
        while (event.kind != PLM_EVENT_FINISHED) {
            OK(plm_stream_next(stream, &event));
        }
        CHECK(event.finish->reason == PLM_FINISH_CANCELLED && time(NULL) - begun < 15);
        CHECK(pthread_join(thread, NULL) == 0);
        OK(plm_stream_free(stream));
        OK(plm_session_free(session));
        OK(plm_model_free(model));
        OK(plm_engine_free(engine));
    }
}

static int32_t count_stages(uint32_t stage, float fraction, void *user) {
    unsigned *seen = (unsigned *)user;
    CHECK(stage <= PLM_LOAD_VERIFYING && fraction >= 0.0f && fraction <= 1.0f);
    *seen |= 1u << stage;
    return 1;
}

static int32_t stop_loading(uint32_t stage, float fraction, void *user) {
    (void)stage, (void)fraction, (void)user;
    return 0;
}

static void a_load_tells_and_can_be_stopped(plm_engine *engine, const char *path) {
    plm_model *model = NULL;
    unsigned seen = 0;
    OK(plm_engine_load(engine, plm_text_of(path), NULL, count_stages, &seen, &model));
    CHECK(seen & (1u << PLM_LOAD_READING) && seen & (1u << PLM_LOAD_UPLOADING));
    OK(plm_model_free(model));
    REFUSED(PLM_CANCELLED, plm_engine_load(engine, plm_text_of(path), NULL, stop_loading, NULL, &model));
    CHECK(model == NULL);
}

static void what_is_known_is_told(plm_engine *engine, plm_model *model, const char *path) {
    plm_estimate estimate = plm_estimate_default();
    OK(plm_engine_estimate(engine, plm_text_of(path), NULL, &estimate));
    CHECK(estimate.fits == 1 && estimate.total > 0 && estimate.peak >= estimate.total);
    plm_load_options little = plm_load_options_default();
    little.memory = 4096;
    OK(plm_engine_estimate(engine, plm_text_of(path), &little, &estimate));
    CHECK(estimate.fits == 0 && estimate.verdict == PLM_OVER_BUDGET);
    CHECK(strstr(plm_last_error_message(), "allowed") != NULL);
    plm_model *none = NULL;
    REFUSED(PLM_OUT_OF_MEMORY, plm_engine_load(engine, plm_text_of(path), &little, NULL, NULL, &none));
    plm_model_info info = plm_model_info_default();
    OK(plm_model_get_info(model, &info));
    CHECK(info.vocab == 512 && info.can_chat == 0 && info.context > 0);
    plm_health health = plm_health_default();
    OK(plm_model_get_health(model, &health));
    CHECK(health.recoveries == 0 && health.slices > 0 && health.slice_max_seconds >= health.slice_median_seconds);
    char backend[8] = "";
    size_t size = 0;
    OK(plm_model_text(model, PLM_MODEL_BACKEND, (uint8_t *)backend, sizeof backend, &size));
    CHECK(size == 3 && strcmp(backend, "cpu") == 0);
    uint32_t tokens[16];
    size_t count = 0;
    plm_prompt prompt = STORY;
    OK(plm_model_tokens(model, &prompt, tokens, 16, &count));
    CHECK(count > 1 && tokens[0] == 1);
    float numbers[256];
    OK(plm_model_embed(model, &prompt, PLM_POOLING_MEAN, numbers, 256, &count));
    float length = 0;
    for (size_t i = 0; i < count; i++) {
        length += numbers[i] * numbers[i];
    }
    CHECK(count == 64 && length > 0.999f && length < 1.001f);
    double log_probability = 0;
    uint32_t is_greedy = 9;
    OK(plm_model_score(model, &prompt, plm_text_of(", there was"), &log_probability, &is_greedy));
    CHECK(log_probability < 0 && is_greedy <= 1);
    uint64_t freed = 0;
    OK(plm_model_trim(model, PLM_TRIM_CRITICAL, &freed));
    CHECK(freed > 0);
    OK(plm_model_trim(model, PLM_TRIM_IDLE, NULL));
    OK(plm_engine_set_pace(engine, PLM_PACE_FRAME, 4.0));
    OK(plm_engine_sustain(engine, 1e5));
    answer answer;
    tell(model, 20, &answer);
    OK(plm_engine_sustain(engine, 0));
    OK(plm_engine_set_pace(engine, PLM_PACE_FULL, 0));
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    CHECK(plm_abi_version() == PLM_ABI_VERSION);
    CHECK(strlen(plm_version()) > 0);
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 0);
    a_load_tells_and_can_be_stopped(engine, argv[1]);
    plm_model *model = load(engine, argv[1], 0);
    plm_model *draft = load(engine, argv[1], 0);
    the_tokens_are_those_of_rust(model, draft, argv[3], argv[4]);
    OK(plm_model_free(draft));
    answer whole;
    tell(model, 60, &whole);
    a_frame_loop_has_the_same_tokens(engine, model, &whole);
    a_callback_hears_all_and_can_stop(model, &whole);
    cancelled_and_continued_is_never_cancelled(model, &whole);
    a_session_is_busy_until_its_stream_is_freed(model, &whole);
    stop_strings_end_an_answer_before_them(model, &whole);
    what_is_saved_goes_on(model, argv[2], &whole);
    sessions_are_computed_ahead_branch_and_slide(engine, argv[1], &whole);
    keys_and_values_are_kept_as_each_session_wants(argv[1], &whole);
    a_worker_computes_and_stands_still(argv[1], &whole);
    a_cancel_does_not_wait_for_its_turn(argv[1]);
    what_is_known_is_told(engine, model, argv[1]);
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
    puts("laws: ok");
    return 0;
}
