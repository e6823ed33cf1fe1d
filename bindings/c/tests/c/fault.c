/* What the sanitizers and valgrind have to see: a session's bytes are read after they were freed. */
#include "check.h"

int main(void) {
    uint8_t *bytes = malloc(64);
    CHECK(bytes != NULL);
    memset(bytes, 1, 64);
    plm_engine *engine = engine_on(PLM_DEVICE_CPU, 0);
    plm_model *model = NULL;
    const uint8_t *volatile freed = bytes;
    free(bytes);
    /* The library reads what it is told to: the fault is the caller's. */
    (void)plm_engine_load_bytes(engine, plm_text_of("freed"), freed, 64, NULL, NULL, NULL, &model);
    OK(plm_engine_free(engine));
    return 0;
}
