"""The twins of the kernels in plain torch: slow and obvious, in any floating-point type. They are the definition."""
