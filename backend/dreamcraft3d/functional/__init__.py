"""Pure mathematics on tensors: no state, no files, no devices of its own. Imports torch and itself only."""
