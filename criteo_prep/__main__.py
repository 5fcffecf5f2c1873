"""`python -m criteo_prep <verb>` is `criteo-prep <verb>`."""

import sys

from criteo_prep.cli import main

if __name__ == "__main__":
    sys.exit(main())
