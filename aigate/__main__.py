"""`python -m aigate` is the command `aigate`."""

from aigate.cli import main

main()
