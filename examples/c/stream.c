/* Streams an answer: stream MODEL "a question". CMakeLists.txt beside it builds it. */
#include <pocketlm.h>
#include <stdio.h>

static int fail(void) {
    fprintf(stderr, "%s\n", plm_last_error_message());
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: stream MODEL QUESTION\n");
        return 2;
    }
    plm_engine *engine;
    plm_model *model;
    plm_session *session;
    plm_stream *stream;
    if (plm_engine_new(NULL, &engine) != PLM_OK) return fail();
    if (plm_engine_load(engine, plm_text_of(argv[1]), NULL, NULL, NULL, &model) != PLM_OK) return fail();
    if (plm_session_new(model, &session) != PLM_OK) return fail();

    plm_generate_options options = plm_generate_options_default();
    options.max_tokens = 200;
    if (plm_session_say(session, plm_text_of(argv[2]), &options, &stream) != PLM_OK) return fail();

    plm_event event = plm_event_default();
    plm_status status;
    while ((status = plm_stream_next(stream, &event)) == PLM_OK) {
        if (event.kind == PLM_EVENT_TEXT) {
            fwrite(event.text.data, 1, event.text.size, stdout);
            fflush(stdout);
        } else if (event.kind == PLM_EVENT_FINISHED) {
            printf("\n[%.1f tokens/s]\n", event.finish->decode_rate);
        }
    }
    if (status != PLM_END) return fail();

    plm_stream_free(stream);
    plm_session_free(session);
    plm_model_free(model);
    plm_engine_free(engine);
    return 0;
}
