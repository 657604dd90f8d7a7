"""Heavy loops as Warp kernels, one source for CPU and CUDA, behind small doors to torch.

`reference` holds the slow torch twin of each; `dispatch` knows where kernels run and which accelerators replace them.
"""
