"""Heavy loops as Warp kernels (one source for CPU and CUDA) behind small doors to torch; `reference` holds their slow twins."""
