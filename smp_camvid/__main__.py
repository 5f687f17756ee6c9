"""`python -m smp_camvid`."""

from smp_camvid.cli import main

main()
