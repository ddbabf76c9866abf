#!/bin/bash
# Succeeds when the server takes TCP clients: connects, and reads its greeting up to the protocol's number, which is ten, the
# code of a newline. No client program is started: while a server comes up this runs many times a second.
exec 3<>/dev/tcp/127.0.0.1/3306 && IFS= read -r -t 5 <&3
