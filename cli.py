"""`python cli.py ...` in a checkout is `smp-camvid ...`; this file only forwards."""

from smp_camvid.cli import main

if __name__ == "__main__":
    main()
