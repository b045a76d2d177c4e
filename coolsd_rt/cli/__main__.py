"""`python -m coolsd_rt.cli`."""

from coolsd_rt.cli.main import main

main()
