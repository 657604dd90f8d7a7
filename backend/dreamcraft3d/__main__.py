"""``python -m dreamcraft3d``: the same as the ``dreamcraft3d`` command."""

from dreamcraft3d.cli import main

if __name__ == "__main__":
    main()
