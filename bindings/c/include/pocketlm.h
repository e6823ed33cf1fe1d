/* pocketlm runs small, heavily compressed language models on the device in someone's hand.
 *
 * Made from bindings/c/src; do not edit.
 *
 * Calls return a plm_status; below 16 nothing went wrong. What did is kept for the thread (plm_last_error).
 *
 * Handles are numbers that are looked up, and no addresses. One that is null, freed, of another kind or made up is
 * PLM_INVALID_HANDLE. Freeing an object takes its handle out of use; a call that is under way in another thread ends
 * first, and what depends on the object goes on: a model outlives its engine, a session its model, a stream its session.
 *
 * Structs begin with their size. Take what the struct's _default() returns and change what you like, so that a program
 * goes on with libraries older and newer than its header. Null in place of options takes the usual ones.
 *
 * Texts are UTF-8, a pointer and a size, with or without a null byte behind. What a call is given has to be there until
 * it returns, and no longer.
 *
 * Every call may be made from every thread. A session and a stream are for one thread at a time: another is told
 * PLM_SESSION_BUSY. Cancelling and freeing wait for nobody. Nothing unwinds out of the library; callbacks must not
 * unwind or jump into it: an exception that comes out of one ends the program.
 */


#ifndef POCKETLM_H
#define POCKETLM_H

#include <stddef.h>
#include <stdint.h>

// The number of this interface: it grows by 1 with each change that breaks programs made with an older header.
#define PLM_ABI_VERSION 1

// Where a number of `plm_generate_options` is as the model's own settings have it.
#define PLM_UNSET -1

// How a call ended. Below 16 nothing went wrong. Newer libraries may return values that are not here.
enum plm_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It did what it says.
    PLM_OK = 0,
    // A stream has no further event.
    PLM_END = 1,
    // A stream has no event yet.
    PLM_PENDING = 2,
    // The operating system refused a file or a stream.
    PLM_IO = 16,
    // No model, session or device at the given place.
    PLM_NOT_FOUND = 17,
    // A file contradicts its format or itself.
    PLM_BAD_FILE = 18,
    // The file is sound, but asks for something that is not there; or options of a newer header.
    PLM_UNSUPPORTED = 19,
    // An argument makes no sense: null, not UTF-8, out of its range.
    PLM_INVALID_ARGUMENT = 20,
    // More tokens than the context holds.
    PLM_CONTEXT_OVERFLOW = 21,
    // Memory of the host or of the device ran out, or would.
    PLM_OUT_OF_MEMORY = 22,
    // No device fits the request.
    PLM_DEVICE_UNAVAILABLE = 23,
    // The device went away.
    PLM_DEVICE_LOST = 24,
    // A kernel computed something that it must not.
    PLM_WRONG_NUMBERS = 25,
    // A chat template refused the conversation.
    PLM_TEMPLATE = 26,
    // The session generates already, or another thread is in a call on the same session or stream.
    PLM_SESSION_BUSY = 27,
    // The caller stopped the work.
    PLM_CANCELLED = 28,
    // The engine stands still until it is resumed.
    PLM_SUSPENDED = 29,
    // A bug in the library.
    PLM_INTERNAL = 30,
    // The handle is null, freed, made up, or of another kind of object.
    PLM_INVALID_HANDLE = 31,
    // The caller's memory is too small; how much it takes has been written.
    PLM_TOO_SMALL = 32,
    // An error of a kind that this interface has no number for.
    PLM_OTHER = 33,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_status plm_status;
#else
typedef int32_t plm_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the text of an answer must be: it is, or the answer ends with `PLM_FINISH_LENGTH`.
enum plm_constraint
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Anything.
    PLM_CONSTRAINT_NONE = 0,
    // JSON that is valid by the schema `grammar`.
    PLM_CONSTRAINT_JSON_SCHEMA = 1,
    // A JSON object, whatever is in it.
    PLM_CONSTRAINT_JSON_OBJECT = 2,
    // All of it matches the regular expression `grammar`.
    PLM_CONSTRAINT_REGEX = 3,
    // One of `choices`.
    PLM_CONSTRAINT_CHOICE = 4,
    // A `start` of the grammar `grammar` in Lark's syntax.
    PLM_CONSTRAINT_LARK = 5,
    // A `root` of the grammar `grammar` in llama.cpp's syntax.
    PLM_CONSTRAINT_GBNF = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_constraint plm_constraint;
#else
typedef uint32_t plm_constraint;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where to compute.
enum plm_device
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A real GPU where there is one, else the CPU.
    PLM_DEVICE_AUTO = 0,
    // A GPU, software Vulkan included.
    PLM_DEVICE_GPU = 1,
    // The CPU.
    PLM_DEVICE_CPU = 2,
    // The GPU at the place `device_index` of those that the system has.
    PLM_DEVICE_INDEX = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_device plm_device;
#else
typedef uint32_t plm_device;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What an event is. Newer libraries may have more: leave them aside.
enum plm_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // So many tokens of the prompt are `done`, of a `total`.
    PLM_EVENT_PREFILL = 0,
    // `text`: whole characters of the answer.
    PLM_EVENT_TEXT = 1,
    // The device was lost, and another took its place; `text` says why. The answer goes on.
    PLM_EVENT_RECOVERED = 2,
    // The engine stands still; the answer waits.
    PLM_EVENT_SUSPENDED = 3,
    // The answer goes on.
    PLM_EVENT_RESUMED = 4,
    // The last event; `finish` says how it ended.
    PLM_EVENT_FINISHED = 5,
    // Something that this interface has no number for.
    PLM_EVENT_OTHER = 6,
    // `text`: more of the arguments of `call`, as the model writes them. The call itself follows when it is whole.
    PLM_EVENT_TOOL_ARGUMENTS = 7,
    // The model wants `call` called; the answer ends with `PLM_FINISH_TOOL_CALLS`.
    PLM_EVENT_TOOL_CALL = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_event_kind plm_event_kind;
#else
typedef uint32_t plm_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Why an answer ended.
enum plm_finish_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The model or a stop string ended it.
    PLM_FINISH_STOP = 0,
    // The limit of tokens or the context is full.
    PLM_FINISH_LENGTH = 1,
    // The caller stopped it.
    PLM_FINISH_CANCELLED = 2,
    // Something that this interface has no number for.
    PLM_FINISH_OTHER = 3,
    // The model waits for the results of its calls.
    PLM_FINISH_TOOL_CALLS = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_finish_reason plm_finish_reason;
#else
typedef uint32_t plm_finish_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What keys and values are kept in.
enum plm_kv_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // As is usual on the device.
    PLM_KV_AUTO = 0,
    // 32-bit floats.
    PLM_KV_F32 = 1,
    // 16-bit floats.
    PLM_KV_F16 = 2,
    // Blocks of 8-bit codes: 8.5 bits an element.
    PLM_KV_Q8 = 3,
    // Blocks of 4-bit codes: 4.5 bits an element.
    PLM_KV_Q4 = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_kv_type plm_kv_type;
#else
typedef uint32_t plm_kv_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A stage of a load, in order. Newer libraries may have more.
enum plm_load_stage
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Reading names, shapes and settings.
    PLM_LOAD_READING = 0,
    // Starting the device.
    PLM_LOAD_OPENING = 1,
    // Moving weights to the device.
    PLM_LOAD_UPLOADING = 2,
    // Making what is left of the device's programs.
    PLM_LOAD_COMPILING = 3,
    // Waiting for what is not yet held against the manifest.
    PLM_LOAD_VERIFYING = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_load_stage plm_load_stage;
#else
typedef uint32_t plm_load_stage;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A text about a model.
enum plm_model_fact
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // What the file calls it.
    PLM_MODEL_NAME = 0,
    // The architecture.
    PLM_MODEL_ARCH = 1,
    // The device that computes now.
    PLM_MODEL_DEVICE = 2,
    // `cpu`, `vulkan`, `metal`, `dx12`.
    PLM_MODEL_BACKEND = 3,
    // Why this device.
    PLM_MODEL_REASON = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_model_fact plm_model_fact;
#else
typedef uint32_t plm_model_fact;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What becomes of a session that outgrows the context.
enum plm_overflow
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A prompt that does not fit is refused, and an answer ends with `PLM_FINISH_LENGTH`.
    PLM_OVERFLOW_STOP = 0,
    // It goes on with its first tokens, the sinks, and as many of the latest ones as fit.
    PLM_OVERFLOW_SLIDE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_overflow plm_overflow;
#else
typedef uint32_t plm_overflow;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How an engine shares a device with the app's own work.
enum plm_pace
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // As fast as it goes.
    PLM_PACE_FULL = 0,
    // A frame waits no longer for its turn than so many milliseconds; 4 leave an app its 60 frames a second.
    PLM_PACE_FRAME = 1,
    // Slices of 2 ms, and as long a rest after each.
    PLM_PACE_BACKGROUND = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_pace plm_pace;
#else
typedef uint32_t plm_pace;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which of a text's positions an embedding is made of.
enum plm_pooling
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Their mean.
    PLM_POOLING_MEAN = 0,
    // The last one, which has seen all.
    PLM_POOLING_LAST = 1,
    // The first one, as models with a token for it want it (`CLS`).
    PLM_POOLING_FIRST = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_pooling plm_pooling;
#else
typedef uint32_t plm_pooling;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a prompt is.
enum plm_prompt_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // `text` as it is, special tokens in it recognised.
    PLM_PROMPT_RAW = 0,
    // `messages`, rendered by the model's chat template, to be answered.
    PLM_PROMPT_CHAT = 1,
    // `tokens` as they are.
    PLM_PROMPT_TOKENS = 2,
    // `text` holds the messages as a JSON array of objects with at least `role` and `content`: whatever else a
    // template knows, such as calls of tools, can be said so.
    PLM_PROMPT_JSON = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_prompt_kind plm_prompt_kind;
#else
typedef uint32_t plm_prompt_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whether a model may call tools.
enum plm_tool_choice
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // As it thinks best.
    PLM_TOOL_CHOICE_AUTO = 0,
    // It is told of none.
    PLM_TOOL_CHOICE_NONE = 1,
    // It has to call one, with arguments that are valid by the schema.
    PLM_TOOL_CHOICE_REQUIRED = 2,
    // It has to call the one with the name `tool_name`.
    PLM_TOOL_CHOICE_NAMED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_tool_choice plm_tool_choice;
#else
typedef uint32_t plm_tool_choice;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What became of a call.
enum plm_tool_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The caller gives up: the loop ends with `PLM_CANCELLED`.
    PLM_TOOL_GIVEN_UP = 0,
    // The tool was called, and the reply is what it came to.
    PLM_TOOL_RETURNED = 1,
    // The tool failed, and the reply says why; the model is told, and goes on.
    PLM_TOOL_FAILED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_tool_outcome plm_tool_outcome;
#else
typedef int32_t plm_tool_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How badly an app is in need of memory.
enum plm_trim
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // What nobody waits for goes; answers under way keep what they have.
    PLM_TRIM_IDLE = 0,
    // All that can be made again goes; answers under way go on with the same tokens, later.
    PLM_TRIM_CRITICAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_trim plm_trim;
#else
typedef uint32_t plm_trim;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whether a model fits.
enum plm_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It does.
    PLM_FITS = 0,
    // It does where others make room for it.
    PLM_TIGHT = 1,
    // It fits in the host's memory; how much the device has, it does not say.
    PLM_UNKNOWN = 2,
    // It takes more than the app allows.
    PLM_OVER_BUDGET = 3,
    // It takes more than there is.
    PLM_OVER_MACHINE = 4,
    // The device has no buffer as large as one that it needs.
    PLM_OVER_BUFFER = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum plm_verdict plm_verdict;
#else
typedef uint32_t plm_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A choice of device, and the models loaded on it. The memory goes when it and all that it loaded are freed.
typedef struct plm_engine plm_engine;

// A model on a device, for as many sessions as one likes.
typedef struct plm_model plm_model;

// What a callback answers with, for as long as it runs.
typedef struct plm_reply plm_reply;

// One sequence of tokens that can be continued, again and again: a conversation, usually. What two of its prompts have in
// common at their beginning is computed once. One answer at a time.
typedef struct plm_session plm_session;

// The events of one answer, in order.
typedef struct plm_stream plm_stream;

// A text in UTF-8: where it begins and how many bytes it has. It need not end with a null byte. Empty is size 0.
typedef struct plm_text {
    // The first byte.
    const char *data;
    // Bytes.
    size_t size;
} plm_text;

// A model's wish that a tool be called.
typedef struct plm_tool_call {
    // Names the call, for its result; others for each call of a session.
    struct plm_text id;
    // The tool's name, which need not be one that there is.
    struct plm_text name;
    // A JSON object, as the model said it: valid by the tool's schema only where it had to be.
    struct plm_text arguments;
} plm_tool_call;

// How an answer ended.
typedef struct plm_finish {
    // How many bytes of this struct the library has written.
    size_t struct_size;
    // A `plm_finish_reason`.
    uint32_t reason;
    // Tokens of the prompt whose keys and values were still there.
    uint32_t cached_tokens;
    // All of the answer's text, without the calls of tools.
    struct plm_text text;
    // The prompt's tokens.
    const uint32_t *prompt_tokens;
    // How many.
    size_t prompt_token_count;
    // The answer's tokens, the one that ended it included.
    const uint32_t *tokens;
    // How many.
    size_t token_count;
    // From the request to the first token.
    double first_token_seconds;
    // From the request to the end.
    double total_seconds;
    // Tokens of the prompt computed per second.
    double prefill_rate;
    // Tokens generated per second, after the first.
    double decode_rate;
    // Tokens that were guessed, where a draft was wanted.
    uint32_t guessed_tokens;
    // Those of them that were right.
    uint32_t accepted_tokens;
    // The tools that are to be called.
    const struct plm_tool_call *calls;
    // How many.
    size_t call_count;
} plm_finish;

// A token, and what is added to its logit.
typedef struct plm_logit_bias {
    // The token.
    uint32_t token;
    // Minus infinity bars it.
    float bias;
} plm_logit_bias;

// Something that a model may ask its host to do.
typedef struct plm_tool {
    // What the model calls it by: up to 64 letters, digits, `_`, `-` and `.`.
    struct plm_text name;
    // What it does, for the model to read.
    struct plm_text description;
    // The JSON schema of its arguments, an object; empty for any object.
    struct plm_text parameters;
} plm_tool;

// What an answer is generated with.
typedef struct plm_generate_options {
    // `sizeof(plm_generate_options)`.
    size_t struct_size;
    // The most tokens of the answer; 0 stops only at the end of the context.
    uint32_t max_tokens;
    // 0 takes the likeliest token; `PLM_UNSET`.
    float temperature;
    // Keeps the likeliest that together reach this probability; `PLM_UNSET`.
    float top_p;
    // Keeps those with at least this share of the likeliest's probability; `PLM_UNSET`.
    float min_p;
    // Divides the logits of recent tokens; 1 changes nothing; `PLM_UNSET`.
    float repeat_penalty;
    // How many recent tokens the penalty looks at; `PLM_UNSET`.
    int32_t repeat_last;
    // Keeps the k likeliest; 0 keeps all; `PLM_UNSET`.
    int32_t top_k;
    // 1 where `seed` is meant; otherwise nobody knows the seed.
    uint32_t has_seed;
    // 1 goes on past the model's own end of an answer.
    uint32_t ignore_end;
    // The draws are a function of it.
    uint64_t seed;
    // Texts that end the answer and are not part of it.
    const struct plm_text *stop;
    // How many.
    size_t stop_count;
    // A `plm_constraint`.
    uint32_t constraint;
    // 1 keeps the text as surprising as is usual for mirostat, in place of top-k, typical, top-p, min-p and XTC.
    uint32_t mirostat;
    // See `plm_constraint`.
    struct plm_text grammar;
    // See `plm_constraint`.
    const struct plm_text *choices;
    // How many.
    size_t choice_count;
    // Keeps those that are as surprising as the text on average, up to this probability; `PLM_UNSET`.
    float typical_p;
    // Is taken from the logit of a recent token each time that it is there; 0 is as the model has it.
    float frequency_penalty;
    // Is taken from the logits of recent tokens once; 0 is as the model has it.
    float presence_penalty;
    // Makes what goes on with a repetition less likely (DRY); 0 is as the model has it.
    float dry_multiplier;
    // How often the likeliest are taken out (XTC); 0 is as the model has it.
    float xtc_probability;
    // Tokens and what is added to their logits.
    const struct plm_logit_bias *logit_bias;
    // How many.
    size_t logit_bias_count;
    // A smaller model with the same vocabulary that guesses the next tokens, to check several at once: the same answer,
    // perhaps sooner; null for none.
    struct plm_model *draft;
    // 1 guesses them by what followed the last time that the latest tokens stood in the session.
    uint32_t lookup;
    // What the model is told that it may ask for.
    const struct plm_tool *tools;
    // How many.
    size_t tool_count;
    // See `PLM_TOOL_CHOICE_NAMED`.
    struct plm_text tool_name;
    // A `plm_tool_choice`.
    uint32_t tool_choice;
} plm_generate_options;

// Makes a conversation shorter: `messages` is all of it, what the user said last included, as a JSON array of objects with
// `role` and `content`; `plm_reply_write` says what is to stand for it, in the same form. Returns 0 to give up, with
// `PLM_CANCELLED`. Called in the thread that says something in the session or in a branch of it; the session is busy meanwhile,
// and others, such as one that is asked for a summary, are not. It must neither throw nor jump out.
typedef int32_t (*plm_condense_callback)(struct plm_text messages, struct plm_reply *reply, void *user);

// What an engine is made with.
typedef struct plm_engine_options {
    // `sizeof(plm_engine_options)`.
    size_t struct_size;
    // A `plm_device`.
    uint32_t device;
    // See `PLM_DEVICE_INDEX`.
    uint32_t device_index;
    // Threads of the CPU backend; 0 takes as many as there are processors.
    uint32_t threads;
    // 1 computes in a thread of the engine's own: streams then wait, and a host without a loop needs no `plm_engine_tick`.
    uint32_t worker;
    // 1 for f32 everywhere: slower, and the same tokens on every device.
    uint32_t exact;
    // 1 stays on the device: one that is lost and does not come back is an error.
    uint32_t pinned;
    // The most bytes of a buffer of a GPU; 0 for what it has.
    uint64_t max_buffer_bytes;
    // A device that is silent for so many milliseconds is lost; 0 waits as long as is usual.
    uint64_t patience_ms;
    // A folder of the app's own to keep what was found out about a GPU; empty keeps nothing.
    struct plm_text tuning;
} plm_engine_options;

// A LoRA adapter beside a model.
typedef struct plm_adapter {
    // A folder of PEFT, the weights in it, or a GGUF file.
    struct plm_text path;
    // What it counts, 1 as it was trained.
    float weight;
} plm_adapter;

// Places for sessions whose keys and values are kept in one type.
typedef struct plm_places {
    // A `plm_kv_type`, and not `PLM_KV_AUTO`.
    uint32_t kv_type;
    // How many sessions.
    uint32_t sessions;
} plm_places;

// What a model is loaded with.
typedef struct plm_load_options {
    // `sizeof(plm_load_options)`.
    size_t struct_size;
    // Positions of a session; 0 takes what the model was trained for, at most 4096.
    uint32_t context;
    // Sessions that keep their keys and values at the same time.
    uint32_t sessions;
    // The most tokens of a prompt that are computed at once.
    uint32_t prefill;
    // The most rows of logits that are computed at once.
    uint32_t outputs;
    // The most bytes of memory that the model may take; 0 for what the machine has.
    uint64_t memory;
    // What is added to the model.
    const struct plm_adapter *adapters;
    // How many.
    size_t adapter_count;
    // The path of a manifest that every file must agree with; empty for none.
    struct plm_text manifest;
    // Minisign's public key, which must have signed the manifest; empty believes the manifest as it is.
    struct plm_text manifest_key;
    // A `plm_kv_type`.
    uint32_t kv_type;
    // Places for sessions whose keys and values are kept in other types; `plm_session_set_kv_type` takes a session there.
    const struct plm_places *more_sessions;
    // How many types.
    size_t more_session_count;
} plm_load_options;

// Hears how far a load is: a `plm_load_stage` and how much of it, 0 to 1. Returns 0 to stop it, with `PLM_CANCELLED`.
// Called in the thread that loads. It must neither throw nor jump out.
typedef int32_t (*plm_load_callback)(uint32_t stage, float fraction, void *user);

// What a tick did.
typedef struct plm_progress {
    // `sizeof(plm_progress)`.
    size_t struct_size;
    // Rows computed.
    uint32_t rows;
    // Slices that the device has finished.
    uint32_t slices;
    // Answers still under way.
    uint32_t under_way;
    // For how many microseconds nothing is to be done, where the pace wants a rest or the engine stands still; else 0.
    uint64_t rest_us;
} plm_progress;

// What a model would take, in bytes.
typedef struct plm_estimate {
    // `sizeof(plm_estimate)`.
    size_t struct_size;
    // A `plm_verdict`.
    uint32_t verdict;
    // 1 where it can be loaded.
    uint32_t fits;
    // Positions of a session.
    uint32_t context;
    // Positions the model was trained for.
    uint32_t trained_context;
    // The longest context that fits, the other choices as they are; 0 where none does.
    uint32_t largest_context;
    // 1 where weights, keys and values are in memory of the host's.
    uint32_t shares_memory;
    // Matrices, and the vectors and tables beside them.
    uint64_t weights;
    // Keys and values of all sessions, full.
    uint64_t kv;
    // Inputs, results and what a submission keeps in between.
    uint64_t scratch;
    // On the host beside all that.
    uint64_t host;
    // On the host beside all that, while it loads.
    uint64_t staging;
    // Pages of the file that are read for every token; no part of the sums.
    uint64_t mapped;
    // On the device; 0 where that is the CPU.
    uint64_t device_bytes;
    // On the host.
    uint64_t host_bytes;
    // Of both, after the load.
    uint64_t total;
    // Of both, at any moment.
    uint64_t peak;
    // What this process can have now without pushing others out; 0 where the system does not say.
    uint64_t available;
} plm_estimate;

// What is known of a model, in numbers. `plm_model_text` has the words.
typedef struct plm_model_info {
    // `sizeof(plm_model_info)`.
    size_t struct_size;
    // Tokens of the vocabulary.
    uint32_t vocab;
    // Positions of a session.
    uint32_t context;
    // Positions it was trained for.
    uint32_t trained_context;
    // 1 where the file brings a chat template.
    uint32_t can_chat;
    // Weights, by count.
    uint64_t parameters;
    // Bytes of the weights in the file.
    uint64_t weight_bytes;
    // What it was estimated to take of memory, of the host and the device.
    uint64_t total_bytes;
    // From the call to the first possible prompt.
    double load_seconds;
} plm_model_info;

// How a model has fared on its device.
typedef struct plm_health {
    // `sizeof(plm_health)`.
    size_t struct_size;
    // Devices that took the place of a lost one.
    uint32_t recoveries;
    // 1 where numbers come from software pretending to be a GPU.
    uint32_t software;
    // What the device was given at a time, by count.
    uint64_t slices;
    // How long half of the last slices took at most.
    double slice_median_seconds;
    // How long 95 of 100 of them took at most.
    double slice_p95_seconds;
    // How long the longest of them took.
    double slice_max_seconds;
} plm_health;

// What somebody says in a conversation.
typedef struct plm_message {
    // `system`, `user`, `assistant` or `tool`.
    struct plm_text role;
    // What is said.
    struct plm_text content;
} plm_message;

// What to continue. Made by `plm_prompt_user` and its sisters; what it points to stays the caller's.
typedef struct plm_prompt {
    // `sizeof(plm_prompt)`.
    size_t struct_size;
    // A `plm_prompt_kind`.
    uint32_t kind;
    // How many `messages` or `tokens`.
    size_t count;
    // See `plm_prompt_kind`.
    struct plm_text text;
    // See `plm_prompt_kind`.
    const struct plm_message *messages;
    // See `plm_prompt_kind`.
    const uint32_t *tokens;
} plm_prompt;

// What is kept of a session beside its history and its conversation.
typedef struct plm_save_options {
    // `sizeof(plm_save_options)`.
    size_t struct_size;
    // 1 keeps keys and values too: large, and the next start is quick.
    uint32_t kv;
} plm_save_options;

// Calls a tool: `call` is what the model wants, `plm_reply_write` says what it came to. Returns a `plm_tool_outcome`. Called in the
// thread that runs the loop; its session is busy meanwhile, and others are not. What `call` points to is valid until it returns. It
// must neither throw nor jump out.
typedef int32_t (*plm_tool_callback)(const struct plm_tool_call *call, struct plm_reply *reply, void *user);

// A piece of news from a session. What it points to is valid until the stream is freed; of `plm_session_run`, until the
// callback returns.
typedef struct plm_event {
    // `sizeof(plm_event)`.
    size_t struct_size;
    // A `plm_event_kind`.
    uint32_t kind;
    // See `PLM_EVENT_PREFILL`.
    uint32_t done;
    // See `PLM_EVENT_PREFILL`.
    uint32_t total;
    // See `PLM_EVENT_TEXT`.
    struct plm_text text;
    // See `PLM_EVENT_FINISHED`; null in other events.
    const struct plm_finish *finish;
    // See `PLM_EVENT_TOOL_CALL` and `PLM_EVENT_TOOL_ARGUMENTS`, whose call has no `arguments`; null in other events.
    const struct plm_tool_call *call;
} plm_event;

// Hears of each event. Returns 0 to stop the answer. It must neither throw nor jump out.
typedef int32_t (*plm_event_callback)(const struct plm_event *event, void *user);

// What went wrong. The texts belong to the library, and are valid until another call of the same thread fails.
typedef struct plm_error {
    // `sizeof(plm_error)`; `plm_error_default` says it.
    size_t struct_size;
    // What the call returned, a `plm_status`.
    int32_t status;
    // One line: what, where, the cause, and what would work.
    struct plm_text message;
    // What would work, by itself; empty where nobody knows.
    struct plm_text hint;
} plm_error;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Adds `text` to what a callback answers with.
plm_status plm_reply_write(struct plm_reply *reply, struct plm_text more);

// Adds an answer to the conversation, with the calls in it: what `plm_session_answered` does, where there are tools.
plm_status plm_session_answered_with(struct plm_session *session,
                                     const struct plm_finish *finish);

// Adds to the conversation what a call came to. When all have come to something, `plm_session_go_on`.
plm_status plm_session_returned(struct plm_session *session,
                                const struct plm_tool_call *call,
                                struct plm_text result);

// Starts the answer to the conversation as it is, such as to the results of calls. Null for `options` takes the usual ones.
plm_status plm_session_go_on(struct plm_session *session,
                             const struct plm_generate_options *options,
                             struct plm_stream **stream);

// The conversation so far, a JSON array of objects with `role` and `content`, copied to `buffer` without a null byte; `size` says
// how many bytes it has. `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the size alone.
plm_status plm_session_transcript(struct plm_session *session,
                                  uint8_t *buffer,
                                  size_t capacity,
                                  size_t *size);

// Puts a conversation, a JSON array as `plm_session_transcript` gives it, in place of this one. What both begin with is not
// computed again.
plm_status plm_session_take_up(struct plm_session *session,
                               struct plm_text conversation);

// Has a conversation that no longer fits made shorter by `condense` before the next answer, again and again until there is room
// for that. `user` has to be there until the session and its branches are freed.
plm_status plm_session_condense_with(struct plm_session *session,
                                     plm_condense_callback condense,
                                     void *user);

// `PLM_ABI_VERSION` of the library; it must be the header's.
uint32_t plm_abi_version(void);

// The version of the library, ended by a null byte.
const char *plm_version(void);

// Makes an engine. Touches no device before a model is loaded. Null for `options` takes the usual ones.
plm_status plm_engine_new(const struct plm_engine_options *options, struct plm_engine **engine);

// Frees an engine. What it loaded goes on.
plm_status plm_engine_free(struct plm_engine *engine);

// Loads a model from a file or a folder: seconds. Null for `options` takes the usual ones, null for `progress` tells nobody.
plm_status plm_engine_load(struct plm_engine *engine,
                           struct plm_text path,
                           const struct plm_load_options *options,
                           plm_load_callback progress,
                           void *user,
                           struct plm_model **model);

// Loads a model from the bytes of a GGUF file, which are copied; `plm_engine_load` otherwise. `name` stands for the path in
// errors.
plm_status plm_engine_load_bytes(struct plm_engine *engine,
                                 struct plm_text name,
                                 const uint8_t *bytes,
                                 size_t count,
                                 const struct plm_load_options *options,
                                 plm_load_callback progress,
                                 void *user,
                                 struct plm_model **model);

// Moves the sessions of all models for about so many microseconds, for hosts with a loop of their own. Null for `progress`
// tells nobody.
plm_status plm_engine_tick(struct plm_engine *engine,
                           uint64_t budget_us,
                           struct plm_progress *progress);

// `plm_progress` as `plm_engine_tick` takes it.
struct plm_progress plm_progress_default(void);

// Shares the device from now on as `pace`, a `plm_pace`, says; `frame_ms` is for `PLM_PACE_FRAME`.
plm_status plm_engine_set_pace(struct plm_engine *engine, uint32_t pace, double frame_ms);

// Generates no more than so many tokens a second for each answer; 0 as many as it can.
plm_status plm_engine_sustain(struct plm_engine *engine, double tokens_per_second);

// Stops submitting, as an app that goes to the background must. Answers wait until `plm_engine_resume`. Returns after
// `within_ms` at the latest, `PLM_PENDING` where not all stands still by then. 1 for `release` gives the memory of the device
// back: resuming loads the weights again.
plm_status plm_engine_suspend(struct plm_engine *engine,
                              uint32_t within_ms,
                              uint32_t release);

// Goes on after `plm_engine_suspend`.
plm_status plm_engine_resume(struct plm_engine *engine);

// What a model would take of memory with these options. Reads names, shapes and settings, and no weights. That it does not
// fit is no failure: `fits` says it, and `plm_last_error` then says what would fit.
plm_status plm_engine_estimate(struct plm_engine *engine,
                               struct plm_text path,
                               const struct plm_load_options *options,
                               struct plm_estimate *estimate);

// `plm_estimate` as `plm_engine_estimate` takes it.
struct plm_estimate plm_estimate_default(void);

// Frees a model. Its sessions and streams go on; the memory goes with the last of them.
plm_status plm_model_free(struct plm_model *model);

// What is known of a model.
plm_status plm_model_get_info(struct plm_model *model, struct plm_model_info *info);

// How a model has fared.
plm_status plm_model_get_health(struct plm_model *model, struct plm_health *health);

// `plm_model_info` as `plm_model_get_info` takes it.
struct plm_model_info plm_model_info_default(void);

// `plm_health` as `plm_model_get_health` takes it.
struct plm_health plm_health_default(void);

// Copies a text about a model, a `plm_model_fact`, to `buffer` without a null byte, and says in `size` how many bytes it has.
// `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the size alone.
plm_status plm_model_text(struct plm_model *model,
                          uint32_t fact,
                          uint8_t *buffer,
                          size_t capacity,
                          size_t *size);

// The tokens of a prompt as a session would compute them, copied to `tokens`; `count` says how many there are.
// `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the count alone.
plm_status plm_model_tokens(struct plm_model *model,
                            const struct plm_prompt *asked,
                            uint32_t *tokens,
                            size_t capacity,
                            size_t *count);

// The embedding of a prompt, of length 1, pooled by a `plm_pooling`, copied to `numbers`; `count` says how many there are.
// `PLM_TOO_SMALL` where they are more than `capacity`.
plm_status plm_model_embed(struct plm_model *model,
                           const struct plm_prompt *asked,
                           uint32_t pooling,
                           float *numbers,
                           size_t capacity,
                           size_t *count);

// How likely `continuation` is after a prompt: the natural logarithm of its probability. `is_greedy`, which may be null, hears
// whether the model would say exactly this by itself.
plm_status plm_model_score(struct plm_model *model,
                           const struct plm_prompt *asked,
                           struct plm_text continuation,
                           double *log_probability,
                           uint32_t *is_greedy);

// Gives memory back while the model stays loaded, as much as `level`, a `plm_trim`, allows. `bytes` hears how many, and may
// be null.
plm_status plm_model_trim(struct plm_model *model,
                          uint32_t level,
                          uint64_t *bytes);

// Gives each adapter its weight, in the order in which they were loaded; 0 takes one out.
plm_status plm_model_weigh_adapters(struct plm_model *model, const float *weights, size_t count);

// A new session without a history.
plm_status plm_session_new(struct plm_model *model, struct plm_session **session);

// The session that `plm_session_save` wrote to a file, on whatever device it was.
plm_status plm_session_restore(struct plm_model *model, struct plm_text path, struct plm_session **session);

// The session that `plm_session_to_bytes` gave, `plm_session_restore` otherwise.
plm_status plm_session_from_bytes(struct plm_model *model,
                                  const uint8_t *bytes,
                                  size_t count,
                                  struct plm_session **session);

// The usual choices.
struct plm_engine_options plm_engine_options_default(void);

// The usual choices.
struct plm_load_options plm_load_options_default(void);

// The usual choices: everything as the model's own settings have it.
struct plm_generate_options plm_generate_options_default(void);

// The usual choices.
struct plm_save_options plm_save_options_default(void);

// The text of a string that ends with a null byte; empty for null.
struct plm_text plm_text_of(const char *string);

// Text as it is.
struct plm_prompt plm_prompt_raw(struct plm_text text);

// A conversation.
struct plm_prompt plm_prompt_chat(const struct plm_message *messages, size_t count);

// A conversation in JSON.
struct plm_prompt plm_prompt_json(struct plm_text text);

// Tokens as they are.
struct plm_prompt plm_prompt_tokens(const uint32_t *tokens, size_t count);

// Says `said` in the conversation that the session keeps, has `call` call each of the tools of `options` that the model asks for,
// hands it the results, and so on until it answers without a call, `rounds` times at most. Where it has to call one, that is for
// the first round. `listen` hears the events of all answers, in which each ends with a `PLM_EVENT_FINISHED`: the last one has the
// reason `PLM_FINISH_TOOL_CALLS` where the rounds did not suffice. Where `listen` returns 0 the answer is stopped, and the loop is
// over; null for it listens to nothing. A call of a tool that there is not is answered with an error, without `call`. The conversation
// keeps all of it, also where something fails on the way, which is returned. `user` is handed to both functions.
plm_status plm_session_run_tools(struct plm_session *session,
                                 struct plm_text said,
                                 const struct plm_generate_options *options,
                                 uint32_t rounds,
                                 plm_tool_callback call,
                                 plm_event_callback listen,
                                 void *user);

// Frees a session. An answer under way goes on, in its stream.
plm_status plm_session_free(struct plm_session *session);

// Starts an answer to `asked`, to be pulled from `stream`. Null for `options` takes the usual ones.
plm_status plm_session_generate(struct plm_session *session,
                                const struct plm_prompt *asked,
                                const struct plm_generate_options *options,
                                struct plm_stream **stream);

// Computes the beginning of what will be asked, ahead of time: instructions, what a user is still writing. Pull `stream` to its
// end; it has no token.
plm_status plm_session_prewarm(struct plm_session *session,
                               const struct plm_prompt *beginning,
                               struct plm_stream **stream);

// Another session that goes on from here, with the same history and conversation; what is computed is shared.
plm_status plm_session_branch(struct plm_session *session, struct plm_session **branch);

// What becomes of the session when it outgrows the context, a `plm_overflow`; `sinks` is for `PLM_OVERFLOW_SLIDE`, at least 4 are
// advisable.
plm_status plm_session_set_overflow(struct plm_session *session,
                                    uint32_t overflow,
                                    uint32_t sinks);

// Has keys and values of this session kept in another type than those of others, a `plm_kv_type`, where the model was loaded
// with places for that (`more_sessions`). What was computed is computed again.
plm_status plm_session_set_kv_type(struct plm_session *session,
                                   uint32_t kv_type);

// Has a conversation that no longer fits forget its oldest exchange before the next answer; instructions stay.
plm_status plm_session_forget_oldest(struct plm_session *session);

// Answers `asked`, and hands each event to `listen` in the calling thread, the last one included. Where `listen` returns 0 the
// answer is stopped, and ends with an event that says so. What fails on the way is returned.
plm_status plm_session_run(struct plm_session *session,
                           const struct plm_prompt *asked,
                           const struct plm_generate_options *options,
                           plm_event_callback listen,
                           void *user);

// Says `said` in the conversation that the session keeps, and starts the answer. When it is there, hand it to
// `plm_session_answered`, or its end to `plm_session_answered_with`.
plm_status plm_session_say(struct plm_session *session,
                           struct plm_text said,
                           const struct plm_generate_options *options,
                           struct plm_stream **stream);

// Adds the model's answer to the conversation.
plm_status plm_session_answered(struct plm_session *session, struct plm_text answer);

// Begins the conversation with an instruction to the model, in place of all that was said.
plm_status plm_session_instruct(struct plm_session *session, struct plm_text instructions);

// Forgets what was said, but for the instructions.
plm_status plm_session_reset(struct plm_session *session);

// Whether an answer was under way when the session was saved, and has not gone on since: 1 or 0.
plm_status plm_session_is_unfinished(struct plm_session *session, uint32_t *unfinished);

// Goes on with the answer that was under way when the session was saved; the stream begins with its text so far.
plm_status plm_session_proceed(struct plm_session *session,
                               const struct plm_generate_options *options,
                               struct plm_stream **stream);

// Saves a session to a file, which is whole whatever happens on the way; an answer under way is saved as far as it is.
// Null for `options` takes the usual ones.
plm_status plm_session_save(struct plm_session *session,
                            struct plm_text path,
                            const struct plm_save_options *options);

// The session in bytes, copied to `bytes`; `count` says how many there are. `PLM_TOO_SMALL` where they are more than
// `capacity`; null and 0 ask for the count alone.
plm_status plm_session_to_bytes(struct plm_session *session,
                                const struct plm_save_options *options,
                                uint8_t *bytes,
                                size_t capacity,
                                size_t *count);

// The last error of this thread, of a call that returned a status of 16 or more.
plm_status plm_last_error(struct plm_error *error);

// `plm_error` as `plm_last_error` takes it.
struct plm_error plm_error_default(void);

// The message of the last error of this thread, ended by a null byte; empty where there was none.
const char *plm_last_error_message(void);

// A status in a word: `invalid argument`.
const char *plm_status_name(int32_t status);

// Waits for the next event; computes it where no worker does. `PLM_END` after the last one.
plm_status plm_stream_next(struct plm_stream *stream, struct plm_event *event);

// The next event where it is there already, `PLM_PENDING` where it is not; never computes and never waits. `PLM_END` after
// the last one.
plm_status plm_stream_poll(struct plm_stream *stream,
                           struct plm_event *event);

// Stops an answer from any thread: it ends with the text so far. Returns at once.
plm_status plm_stream_cancel(struct plm_stream *stream);

// Frees a stream, its events and their texts. An answer under way is stopped; a call that waits for it in another thread
// returns `PLM_INVALID_HANDLE`.
plm_status plm_stream_free(struct plm_stream *stream);

// `plm_event` as `plm_stream_next` takes it.
struct plm_event plm_event_default(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POCKETLM_H */
