"""`python -m conch`: the same as the `conch` script."""

from conch.cli import main

main()
