/* Tools and long conversations with a real model: tools MODEL. */
#include "check.h"

#define QUESTION plm_text_of("What is the weather like in Paris?")

static plm_tool weather(void) {
    plm_tool tool = {
        plm_text_of("get_weather"),
        plm_text_of("Says what the weather is like in a city."),
        plm_text_of("{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\", \"maxLength\": 30},"
                    " \"unit\": {\"enum\": [\"C\", \"F\"]}}, \"required\": [\"city\", \"unit\"],"
                    " \"additionalProperties\": false}"),
    };
    return tool;
}

static plm_generate_options options_of(const plm_tool *tool, uint32_t choice) {
    plm_generate_options options = tokens_of(60);
    options.temperature = 0.0f;
    options.tools = tool;
    options.tool_count = 1;
    options.tool_choice = choice;
    options.tool_name = tool->name;
    return options;
}

/* The conversation of a session. */
static void transcript(plm_session *session, char *text, size_t capacity) {
    size_t size = 0;
    OK(plm_session_transcript(session, NULL, 0, &size));
    CHECK(size > 0 && size < capacity);
    REFUSED(PLM_TOO_SMALL, plm_session_transcript(session, (uint8_t *)text, size - 1, &size));
    OK(plm_session_transcript(session, (uint8_t *)text, capacity, &size));
    text[size] = '\0';
}

/* Asks, has the call made, and hands its result back: the answer to it, and the conversation. */
static void a_call_is_handed_out_and_its_result_back(plm_model *model, uint32_t choice, char *said, size_t capacity) {
    plm_tool tool = weather();
    plm_generate_options options = options_of(&tool, choice);
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    OK(plm_session_new(model, &session));
    OK(plm_session_say(session, QUESTION, &options, &stream));
    char streamed[256] = "";
    unsigned pieces = 0, calls = 0;
    plm_event event = plm_event_default();
    plm_status status;
    while ((status = plm_stream_next(stream, &event)) == PLM_OK) {
        CHECK(event.kind != PLM_EVENT_TEXT);
        if (event.kind == PLM_EVENT_TOOL_ARGUMENTS) {
            CHECK(same_text(event.call->name, "get_weather") && event.call->arguments.size == 0);
            CHECK(strlen(streamed) + event.text.size < sizeof streamed);
            strncat(streamed, event.text.data, event.text.size);
            pieces += 1;
        } else if (event.kind == PLM_EVENT_TOOL_CALL) {
            calls += 1;
        } else {
            CHECK(event.call == NULL);
        }
        if (event.kind != PLM_EVENT_FINISHED) continue;
        const plm_finish *finish = event.finish;
        CHECK(finish->reason == PLM_FINISH_TOOL_CALLS && finish->text.size == 0 && finish->call_count == 1);
        const plm_tool_call *call = finish->calls;
        CHECK(same_text(call->name, "get_weather") && call->id.size > 0);
        printf("%.*s %.*s\n", (int)call->name.size, call->name.data, (int)call->arguments.size, call->arguments.data);
        CHECK(memchr(call->arguments.data, '{', call->arguments.size) == call->arguments.data);
        CHECK(strstr(streamed, "city") != NULL && pieces > 2 && calls == 1);
        OK(plm_session_answered_with(session, finish));
        OK(plm_session_returned(session, call, plm_text_of("22 degrees, sunny")));
    }
    CHECK(status == PLM_END);
    /* Its texts were kept for the conversation. */
    OK(plm_stream_free(stream));
    transcript(session, said, capacity);
    options.tool_choice = PLM_TOOL_CHOICE_AUTO;
    answer answer, again;
    OK(plm_session_go_on(session, &options, &stream));
    pull(stream, &answer);
    CHECK(answer.text_size > 0);
    /* Taken up elsewhere it is the same conversation. */
    plm_session *other = NULL;
    OK(plm_session_new(model, &other));
    OK(plm_session_take_up(other, plm_text_of(said)));
    OK(plm_session_go_on(other, &options, &stream));
    pull(stream, &again);
    CHECK(same_tokens(&answer, 0, &again));
    OK(plm_session_free(other));
    OK(plm_session_free(session));
}

static void calls_that_make_no_sense_are_refused(plm_model *model) {
    plm_session *session = NULL;
    plm_stream *stream = NULL;
    OK(plm_session_new(model, &session));
    const plm_tool sound = weather();
    plm_tool tool = sound;
    plm_generate_options options = options_of(&tool, PLM_TOOL_CHOICE_REQUIRED);
#define SAYING REFUSED(PLM_INVALID_ARGUMENT, plm_session_say(session, QUESTION, &options, &stream))
    tool.parameters = plm_text_of("{\"type\": ");
    SAYING;
    CHECK(strstr(plm_last_error_message(), "get_weather") != NULL);
    tool.parameters = plm_text_of("[]");
    SAYING;
    tool.parameters.size = 3;
    tool.parameters.data = NULL;
    SAYING;
    tool = sound;
    tool.name = plm_text_of("get weather");
    SAYING;
    tool.name = plm_text_of("\xff");
    SAYING;
    tool = sound;
    options.tool_choice = 17;
    SAYING;
    options.tool_choice = PLM_TOOL_CHOICE_NAMED;
    options.tool_name = plm_text_of("other");
    SAYING;
    options.tool_choice = PLM_TOOL_CHOICE_REQUIRED;
    options.tool_count = 0;
    SAYING;
    options.tool_count = SIZE_MAX / 4;
    SAYING;
    options.tool_count = 2;
    options.tools = NULL;
    SAYING;
    options.tools = &tool;
    options.tool_count = 1;
    options.constraint = PLM_CONSTRAINT_JSON_OBJECT;
    SAYING;
    options.constraint = PLM_CONSTRAINT_NONE;
    tool.parameters = plm_text_of("{\"not\": {}}");
    REFUSED(PLM_UNSUPPORTED, plm_session_say(session, QUESTION, &options, &stream));
#undef SAYING
    /* Nothing of that was said. */
    char said[64];
    transcript(session, said, sizeof said);
    CHECK(strcmp(said, "[]") == 0 && stream == NULL);

    plm_tool_call call = {plm_text_of("c0"), plm_text_of("get_weather"), plm_text_of("{\"city\": ")};
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_returned(session, &call, plm_text_of("x")));
    call.arguments = plm_text_of("3");
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_returned(session, &call, plm_text_of("x")));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_returned(session, NULL, plm_text_of("x")));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_answered_with(session, NULL));
    plm_finish finish;
    memset(&finish, 0, sizeof finish);
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_answered_with(session, &finish));
    finish.struct_size = sizeof finish;
    finish.call_count = 7;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_answered_with(session, &finish));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_take_up(session, plm_text_of("{}")));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_take_up(session, plm_text_of("[\"hello\"]")));
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_condense_with(session, NULL, NULL));
    OK(plm_session_free(session));
}

/* How a rule for long conversations behaves. */
enum manner { GIVES_UP, GIVES_JUNK, GIVES_NOTHING, GIVES_ALL, SUMS_UP };

typedef struct host {
    plm_session *session;
    plm_model *model;
    plm_reply *reply;
    enum manner manner;
    unsigned asked;
} host;

static int32_t condense(plm_text messages, plm_reply *reply, void *user) {
    host *host = (struct host *)user;
    host->asked += 1;
    host->reply = reply;
    plm_stream *stream = NULL;
    plm_session *other = NULL;
    size_t size = 0;
    CHECK(messages.size > 1000 && messages.data[0] == '[');
    /* The session itself is busy, and nobody waits for it. */
    REFUSED(PLM_SESSION_BUSY, plm_session_say(host->session, QUESTION, NULL, &stream));
    REFUSED(PLM_SESSION_BUSY, plm_session_transcript(host->session, NULL, 0, &size));
    REFUSED(PLM_INVALID_ARGUMENT, plm_reply_write(reply, (plm_text){"\xc3\x28", 2}));
    REFUSED(PLM_INVALID_HANDLE, plm_reply_write((plm_reply *)(void *)host->model, plm_text_of("x")));
    switch (host->manner) {
    case GIVES_UP:
        OK(plm_reply_write(reply, plm_text_of("[]")));
        return 0;
    case GIVES_JUNK:
        OK(plm_reply_write(reply, plm_text_of("[{\"role\": ")));
        return 1;
    case GIVES_NOTHING:
        return 1;
    case GIVES_ALL:
        OK(plm_reply_write(reply, messages));
        return 1;
    case SUMS_UP:
        break;
    }
    /* The model itself may be asked, in another session. */
    answer summary;
    plm_generate_options options = tokens_of(8);
    options.temperature = 0.0f;
    OK(plm_session_new(host->model, &other));
    OK(plm_session_say(other, plm_text_of("Say hello."), &options, &stream));
    pull(stream, &summary);
    CHECK(summary.text_size > 0);
    OK(plm_session_free(other));
    OK(plm_reply_write(reply, plm_text_of("[{\"role\": \"user\", \"content\": \"What is the capital ")));
    OK(plm_reply_write(reply, plm_text_of("of France?\"}]")));
    return 1;
}

static void a_conversation_is_made_shorter_by_the_apps_rule(plm_model *model) {
    static char before[8192], after[8192];
    size_t at = (size_t)snprintf(before, sizeof before, "[{\"role\":\"user\",\"content\":\"");
    for (unsigned i = 0; i < 400; i++) {
        at += (size_t)snprintf(before + at, sizeof before - at, "word ");
    }
    snprintf(before + at, sizeof before - at, "\"},{\"role\":\"assistant\",\"content\":\"Yes.\"}]");
    plm_session *session = NULL, *branch = NULL;
    plm_stream *stream = NULL;
    OK(plm_session_new(model, &session));
    OK(plm_session_take_up(session, plm_text_of(before)));
    plm_generate_options options = tokens_of(16);
    options.temperature = 0.0f;
    REFUSED(PLM_CONTEXT_OVERFLOW, plm_session_say(session, QUESTION, &options, &stream));
    host host = {.session = session, .model = model, .manner = GIVES_UP};
    OK(plm_session_condense_with(session, condense, &host));
    const struct { enum manner manner; plm_status status; } refused[] = {
        {GIVES_UP, PLM_CANCELLED},
        {GIVES_JUNK, PLM_INVALID_ARGUMENT},
        {GIVES_NOTHING, PLM_INVALID_ARGUMENT},
        {GIVES_ALL, PLM_CONTEXT_OVERFLOW},
    };
    for (unsigned i = 0; i < 4; i++) {
        host.manner = refused[i].manner;
        REFUSED(refused[i].status, plm_session_say(session, QUESTION, &options, &stream));
        CHECK(host.asked == i + 1 && stream == NULL);
        /* A reply is over with its callback. */
        REFUSED(PLM_INVALID_HANDLE, plm_reply_write(host.reply, plm_text_of("x")));
        transcript(session, after, sizeof after);
        CHECK(strcmp(before, after) == 0);
    }
    /* A branch has the rule too. */
    OK(plm_session_branch(session, &branch));
    host.manner = SUMS_UP;
    plm_session *both[] = {session, branch};
    for (unsigned i = 0; i < 2; i++) {
        host.session = both[i];
        OK(plm_session_say(both[i], QUESTION, &options, &stream));
        answer answer;
        pull(stream, &answer);
        CHECK(strstr(answer.text, "Paris") != NULL && host.asked == 5 + i);
    }
    /* The engine's own rule in its place. */
    OK(plm_session_take_up(branch, plm_text_of(before)));
    OK(plm_session_forget_oldest(branch));
    OK(plm_session_say(branch, QUESTION, &options, &stream));
    OK(plm_stream_free(stream));
    CHECK(host.asked == 6);
    OK(plm_session_free(branch));
    OK(plm_session_free(session));
}

/* How a tool behaves, and what is heard of a loop that calls it. */
typedef struct caller {
    plm_session *session;
    plm_reply *reply;
    int32_t outcome;
    const char *result;
    unsigned called, finished;
    uint32_t reason;
    bool stop;
} caller;

static int32_t call_tool(const plm_tool_call *call, plm_reply *reply, void *user) {
    caller *caller = (struct caller *)user;
    caller->called += 1;
    caller->reply = reply;
    CHECK(same_text(call->name, "get_weather") && call->id.size > 0);
    CHECK(call->arguments.size > 0 && call->arguments.data[0] == '{');
    /* The session itself is busy, and nobody waits for it. */
    size_t size = 0;
    REFUSED(PLM_SESSION_BUSY, plm_session_transcript(caller->session, NULL, 0, &size));
    REFUSED(PLM_INVALID_ARGUMENT, plm_reply_write(reply, (plm_text){"\xc3\x28", 2}));
    OK(plm_reply_write(reply, plm_text_of(caller->result)));
    return caller->outcome;
}

static int32_t hear_loop(const plm_event *event, void *user) {
    caller *caller = (struct caller *)user;
    if (event->kind != PLM_EVENT_FINISHED) return !caller->stop;
    caller->finished += 1;
    caller->reason = event->finish->reason;
    return 1;
}

static void a_loop_calls_and_goes_on(plm_model *model) {
    static char said[8192];
    plm_tool tool = weather();
    plm_generate_options options = options_of(&tool, PLM_TOOL_CHOICE_REQUIRED);
    const struct {
        int32_t outcome;
        const char *result, *told;
        plm_status status;
    } cases[] = {
        {PLM_TOOL_RETURNED, "22 degrees, sunny", "22 degrees, sunny", PLM_OK},
        {PLM_TOOL_FAILED, "no such city", "{\\\"error\\\":\\\"no such city\\\"}", PLM_OK},
        {PLM_TOOL_GIVEN_UP, "unheard", NULL, PLM_CANCELLED},
        {17, "unheard", NULL, PLM_INVALID_ARGUMENT},
        {-1, "unheard", NULL, PLM_INVALID_ARGUMENT},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        plm_session *session = NULL;
        OK(plm_session_new(model, &session));
        caller caller = {.session = session, .outcome = cases[i].outcome, .result = cases[i].result};
        plm_status status = plm_session_run_tools(session, QUESTION, &options, 1, call_tool, hear_loop, &caller);
        CHECK(status == cases[i].status && caller.called == 1);
        if (status != PLM_OK) {
            plm_error error = plm_error_default();
            OK(plm_last_error(&error));
            CHECK(error.status == status && error.message.size > 0);
        }
        /* A reply is over with its callback, and the session is free again. */
        REFUSED(PLM_INVALID_HANDLE, plm_reply_write(caller.reply, plm_text_of("x")));
        transcript(session, said, sizeof said);
        CHECK(strstr(said, "\"tool_calls\"") != NULL && strstr(said, "unheard") == NULL);
        CHECK(caller.finished == (status == PLM_OK ? 2 : 1));
        CHECK(cases[i].told == NULL || strstr(said, cases[i].told) != NULL);
        OK(plm_session_free(session));
    }
    plm_session *session = NULL;
    OK(plm_session_new(model, &session));
    caller caller = {.session = session, .outcome = PLM_TOOL_RETURNED, .result = "22"};
    /* No round is left: the call is handed out. Without a listener it is in the conversation. */
    OK(plm_session_run_tools(session, QUESTION, &options, 0, call_tool, hear_loop, &caller));
    CHECK(caller.called == 0 && caller.finished == 1 && caller.reason == PLM_FINISH_TOOL_CALLS);
    OK(plm_session_reset(session));
    OK(plm_session_run_tools(session, QUESTION, &options, 0, call_tool, NULL, &caller));
    transcript(session, said, sizeof said);
    CHECK(strstr(said, "\"tool_calls\"") != NULL);
    OK(plm_session_reset(session));
    /* A listener that has heard enough stops it. */
    caller.stop = true;
    OK(plm_session_run_tools(session, QUESTION, &options, 3, call_tool, hear_loop, &caller));
    CHECK(caller.called == 0 && caller.finished == 2 && caller.reason == PLM_FINISH_CANCELLED);
    OK(plm_session_reset(session));
    /* What makes no sense is refused before anything is said. */
    caller.finished = 0;
#define RUN(session, options, call) plm_session_run_tools(session, QUESTION, options, 1, call, hear_loop, &caller)
    REFUSED(PLM_INVALID_ARGUMENT, RUN(session, &options, NULL));
    REFUSED(PLM_INVALID_ARGUMENT, RUN(session, NULL, call_tool));
    REFUSED(PLM_INVALID_HANDLE, RUN(NULL, &options, call_tool));
    REFUSED(PLM_INVALID_HANDLE, RUN((plm_session *)(void *)model, &options, call_tool));
    options.tool_count = 0;
    REFUSED(PLM_INVALID_ARGUMENT, RUN(session, &options, call_tool));
    options.tool_count = 1;
    options.tool_choice = 17;
    REFUSED(PLM_INVALID_ARGUMENT, RUN(session, &options, call_tool));
    plm_text junk = {"\xff", 1};
    options.tool_choice = PLM_TOOL_CHOICE_REQUIRED;
    REFUSED(PLM_INVALID_ARGUMENT, plm_session_run_tools(session, junk, &options, 1, call_tool, NULL, NULL));
#undef RUN
    transcript(session, said, sizeof said);
    CHECK(strcmp(said, "[]") == 0 && caller.finished == 0);
    OK(plm_session_free(session));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 0);
    plm_load_options load = plm_load_options_default();
    load.context = 384;
    load.prefill = 64;
    plm_model *model = NULL;
    OK(plm_engine_load(engine, plm_text_of(argv[1]), &load, NULL, NULL, &model));
    char said[2][4096];
    a_call_is_handed_out_and_its_result_back(model, PLM_TOOL_CHOICE_REQUIRED, said[0], sizeof said[0]);
    a_call_is_handed_out_and_its_result_back(model, PLM_TOOL_CHOICE_NAMED, said[1], sizeof said[1]);
    CHECK(strstr(said[0], "\"tool_calls\"") != NULL && strstr(said[0], "22 degrees") != NULL);
    calls_that_make_no_sense_are_refused(model);
    a_loop_calls_and_goes_on(model);
    a_conversation_is_made_shorter_by_the_apps_rule(model);
    OK(plm_model_free(model));
    OK(plm_engine_free(engine));
    puts("tools: ok");
    return 0;
}
