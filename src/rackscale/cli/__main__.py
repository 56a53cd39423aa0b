"""`python -m rackscale.cli`, for where the script is not on the path."""

import sys

from rackscale.cli.app import main

sys.exit(main())
