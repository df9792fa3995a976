"""`python -m overtone`, which is also how `torchrun` starts the command."""

from overtone.cli import main

if __name__ == "__main__":
    main()
