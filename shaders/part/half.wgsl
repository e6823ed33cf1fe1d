// f16, before all else.
enable f16;
