// The embedding of a text by llama.cpp, through its C interface: embeddings LIB MODEL.gguf mean|last|first ID,ID,…
// prints its numbers, not normalized.
// c++ -O2 -std=c++17 embeddings.cpp -ISOURCES/include -ISOURCES/ggml/include -LLIB -lllama -lggml -lggml-base
#include "peer.h"

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s LIB MODEL.gguf mean|last|first ID,ID,...\n", argv[0]);
        return 2;
    }
    const std::string pooling = argv[3];
    const std::vector<llama_token> ids = ids_of(argv[4]);

    // Its products by AMX end the program at short texts.
    llama_model *model = model_of(argv[1], argv[2], false);
    if (!model) return 1;
    llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = 512;
    of_context.n_ubatch = of_context.n_batch = 512;
    of_context.n_threads = of_context.n_threads_batch = 1;
    of_context.embeddings = true;
    of_context.pooling_type = pooling == "mean"   ? LLAMA_POOLING_TYPE_MEAN
                              : pooling == "last" ? LLAMA_POOLING_TYPE_LAST
                                                  : LLAMA_POOLING_TYPE_CLS;
    llama_context *context = llama_init_from_model(model, of_context);
    llama_batch batch = llama_batch_init((int32_t)ids.size(), 0, 1);
    for (llama_token id : ids) {
        const int32_t at = batch.n_tokens++;
        batch.token[at] = id;
        batch.pos[at] = at;
        batch.n_seq_id[at] = 1;
        batch.seq_id[at][0] = 0;
        batch.logits[at] = 1;
    }
    if (!context || llama_decode(context, batch)) return 1;
    const float *numbers = llama_get_embeddings_seq(context, 0);
    if (!numbers) return 1;
    const int width = llama_model_n_embd(model);
    for (int i = 0; i < width; i++) printf("%s%.8g", i ? ", " : "[", numbers[i]);
    puts("]");
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
}
