"""Pretrained denoisers that guide the optimisation, behind one protocol."""
