"""`python -m fairmend` is the command `fairmend`."""

from fairmend.cli.entry import main

if __name__ == "__main__":
    main()
