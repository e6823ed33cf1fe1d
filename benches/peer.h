// What each program of llama.cpp's interface begins with: ids from the command line, and a model on the CPU.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

inline std::vector<llama_token> ids_of(const char *listed) {
    std::vector<llama_token> ids;
    std::stringstream list(listed);
    for (std::string id; std::getline(list, id, ',');) ids.push_back(std::atoi(id.c_str()));
    return ids;
}

// Null where it cannot be loaded. `repacks`: weights may be laid out again for the instructions of the CPU.
inline llama_model *model_of(const char *libraries, const char *path, bool repacks) {
    llama_log_set([](ggml_log_level level, const char *text, void *) {
        if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
    }, nullptr);
    ggml_backend_load_all_from_path(libraries);
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.use_extra_bufts = repacks;
    return llama_model_load_from_file(path, params);
}
