"""The stages of the paper in order: reference, coarse NeRF, NeuS, geometry, texture. One readable file each."""
