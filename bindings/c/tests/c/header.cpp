// The header is C++ too.
#include <pocketlm.h>

#include <string>

int main() {
    plm_generate_options options = plm_generate_options_default();
    options.max_tokens = 1;
    const plm_status status = plm_session_generate(nullptr, nullptr, &options, nullptr);
    const std::string said = plm_last_error_message();
    return status == PLM_INVALID_ARGUMENT && !said.empty() && plm_abi_version() == PLM_ABI_VERSION ? 0 : 1;
}
