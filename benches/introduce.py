"""Lets a further device in: both sides of `invite greet` and `join`, who read each other's codes.

introduce.py MOUNTCTL HOST_HOME GUEST_HOME TOKEN LINK LABEL
"""

import queue
import subprocess
import sys
import threading

mountctl, host, guest, token, link, label = sys.argv[1:]


def sit(arguments, says, hears):
    process = subprocess.Popen(
        [mountctl, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    codes = {}
    for line in process.stderr:
        if line.startswith("Read this code"):
            says.put(line.split()[-1])
        elif line.startswith("Number:"):
            process.stdin.write(codes[hears.get()] + "\n")
            process.stdin.flush()
        elif line.startswith("  "):
            number, code = line.strip().split("  ", 1)
            codes[code] = number
    if process.wait() != 0:
        sys.exit(f"{arguments[2]} failed")


one, other = queue.Queue(), queue.Queue()
greet = ["--home", host, "invite", "greet", token]
join = ["--home", guest, "join", link, "--auth", "keyfile", "--device-label", label]
greeting = threading.Thread(target=sit, args=(greet, one, other))
greeting.start()
sit(join, other, one)
greeting.join()
