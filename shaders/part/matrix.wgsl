// Matrices that a subgroup multiplies together, of f16, which naga and wgpu know and WGSL does not yet.
enable f16;
enable wgpu_cooperative_matrix;
