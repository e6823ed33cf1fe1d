/* A conversation with a real model: chat MODEL DEVICE TOKENS, the device a plm_device. */
#include "check.h"

int main(int argc, char **argv) {
    CHECK(argc == 4);
    plm_engine *engine = engine_on((uint32_t)atoi(argv[2]), 0);
    plm_load_options load = plm_load_options_default();
    load.context = 512;
    load.prefill = 32;
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(argv[1]), &load, NULL, NULL, &model));
    char device[128];
    size_t size = 0;
    OK(plm_model_text(model, PLM_MODEL_DEVICE, (uint8_t *)device, sizeof device, &size));
    printf("on %.*s\n", (int)size, device);

    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    OK(plm_session_instruct(session, plm_text_of("Answer in one word.")));
    plm_generate_options options = tokens_of((uint32_t)atoi(argv[3]));
    options.temperature = 0.0f;
    const char *questions[] = {"What is the capital of France?", "And of Italy?"};
    for (int turn = 0; turn < 2; turn++) {
        plm_stream *stream = NULL;
        OK(plm_session_say(session, plm_text_of(questions[turn]), &options, &stream));
        plm_event event = plm_event_default();
        plm_status status;
        answer answer;
        memset(&answer, 0, sizeof answer);
        printf("%s ", questions[turn]);
        while ((status = plm_stream_next(stream, &event)) == PLM_OK) {
            hear(&answer, &event);
            if (event.kind == PLM_EVENT_TEXT) {
                printf("%.*s", (int)event.text.size, event.text.data);
            } else if (event.kind == PLM_EVENT_FINISHED) {
                const plm_finish *finish = event.finish;
                printf(" [%zu tokens of prompt, %u of them cached, %.1f tokens/s]\n", finish->prompt_token_count,
                       finish->cached_tokens, finish->decode_rate);
                /* What was said before is not computed again. */
                CHECK(turn == 0 || finish->cached_tokens > 20);
                OK(plm_session_answered(session, finish->text));
            }
        }
        CHECK(status == PLM_END);
        CHECK(strstr(answer.text, turn == 0 ? "Paris" : "Rome") != NULL);
        OK(plm_stream_free(stream));
    }
    /* What the text must be. */
    plm_session *fresh = NULL;
    plm_stream *stream = NULL;
    OK(plm_session_new(model, &fresh));
    const plm_text choices[] = {plm_text_of("Berlin"), plm_text_of("Paris")};
    options.constraint = PLM_CONSTRAINT_CHOICE;
    options.choices = choices;
    options.choice_count = 2;
    OK(plm_session_say(fresh, plm_text_of(questions[0]), &options, &stream));
    answer choice;
    pull(stream, &choice);
    printf("of two choices: %s\n", choice.text);
    CHECK(strcmp(choice.text, "Paris") == 0 || strcmp(choice.text, "Berlin") == 0);
    CHECK(choice.reason == PLM_FINISH_STOP);
    OK(plm_session_free(fresh));
    /* The same in messages, and in JSON. */
    const plm_message messages[] = {{plm_text_of("system"), plm_text_of("Answer in one word.")},
                                    {plm_text_of("user"), plm_text_of(questions[0])}};
    plm_prompt said = plm_prompt_chat(messages, 2);
    plm_prompt json = plm_prompt_json(
        plm_text_of("[{\"role\": \"system\", \"content\": \"Answer in one word.\"},"
                    " {\"role\": \"user\", \"content\": \"What is the capital of France?\"}]"));
    uint32_t tokens[2][128];
    size_t counts[2];
    OK(plm_model_tokens(model, &said, tokens[0], 128, &counts[0]));
    OK(plm_model_tokens(model, &json, tokens[1], 128, &counts[1]));
    CHECK(counts[0] == counts[1] && memcmp(tokens[0], tokens[1], counts[0] * sizeof(uint32_t)) == 0);
    OK(plm_session_free(session));
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
    puts("chat: ok");
    return 0;
}
