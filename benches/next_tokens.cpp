// The likeliest next tokens by llama.cpp, through its C interface: next_tokens LIB MODEL.gguf THREADS K ID,ID,…
// prints [[token, logit], …] after the last id. With 0 threads: one, F32 keys and values, no flash attention.
// c++ -O2 -std=c++17 next_tokens.cpp -ISOURCES/include -ISOURCES/ggml/include -LLIB -lllama -lggml -lggml-base
#include <algorithm>
#include <numeric>

#include "peer.h"

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s LIB MODEL.gguf THREADS K ID,ID,...\n", argv[0]);
        return 2;
    }
    std::vector<llama_token> ids = ids_of(argv[5]);

    llama_model *model = model_of(argv[1], argv[2], true);
    if (!model) return 1;
    llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = 512;
    const int threads = std::atoi(argv[3]);
    of_context.n_threads = of_context.n_threads_batch = std::max(threads, 1);
    if (threads == 0) {
        of_context.type_k = of_context.type_v = GGML_TYPE_F32;
        of_context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    llama_context *context = llama_init_from_model(model, of_context);
    if (!context || llama_decode(context, llama_batch_get_one(ids.data(), (int32_t)ids.size()))) return 1;

    const float *logits = llama_get_logits_ith(context, -1);
    std::vector<int> order(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    std::iota(order.begin(), order.end(), 0);
    const int k = std::min<int>(std::atoi(argv[4]), (int)order.size());
    std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    for (int i = 0; i < k; i++) printf("%s[%d, %.6f]", i ? ", " : "[", order[i], logits[order[i]]);
    puts("]");
    llama_free(context);
    llama_model_free(model);
}
