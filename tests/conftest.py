"""What holds for all tests."""

import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that; some tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
