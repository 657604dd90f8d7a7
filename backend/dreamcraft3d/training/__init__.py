"""How the bundled prior is made: procedural objects, their pictures, and the training loop."""
