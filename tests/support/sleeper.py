"""A command that prints what it was given, waits for the end of its standard input, and says goodbye at its end."""

import atexit
import json
import os
import sys

facts = {"pid": os.getpid(), "words": sys.argv[1:], "directory": os.getcwd(), "mood": os.environ.get("MOOD")}
print(json.dumps(facts), flush=True)
atexit.register(print, "goodbye")
sys.exit(int(sys.stdin.read() or 0))
